// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/base/loop.h"
#include "agent/kube/access.h"

#include <cstdint>
#include <functional>
#include <string>
#include <sys/types.h>

namespace thruway {

/// What a plugin has handed out.
struct ExecCredential {
    std::string token;
    std::string certificate;
    std::string key;
    int64_t expires = 0; ///< ms since 1970; 0: with the process
};

/// What a plugin is told in KUBERNETES_EXEC_INFO.
std::string exec_info(const Access &access);

/// Reads what a plugin has printed. The error names the field.
Result<ExecCredential> parse_exec_credential(const std::string &json);

/// A run of a plugin, which ends when it is destroyed.
class ExecRun {
public:
    using Done = std::function<void(Result<ExecCredential>)>;

    /// Calls `done` once, from the loop; it may destroy this.
    static Result<std::unique_ptr<ExecRun>> start(Loop &loop, const Access &access, Done done);

    ExecRun(const ExecRun &) = delete;
    ExecRun &operator=(const ExecRun &) = delete;
    ~ExecRun();

private:
    ExecRun(Loop &loop, std::string command, Done done)
        : loop_(loop), command_(std::move(command)), done_(std::move(done))
    {
    }
    Result<> spawn(const Access &access);
    void on_exit();
    [[nodiscard]] Result<ExecCredential> result(int status) const;

    Loop &loop_;
    std::string command_;
    Done done_;
    Fd output_;
    Fd process_;
    pid_t pid_ = 0;
    Loop::Timer deadline_ = 0;
};

} // namespace thruway
