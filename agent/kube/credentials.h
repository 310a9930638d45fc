// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/loop.h"
#include "agent/kube/access.h"
#include "agent/kube/exec_plugin.h"

#include <functional>
#include <memory>
#include <optional>

namespace thruway {

/// The way to the API server and what it takes to be let in, always as it is now.
class Credentials {
public:
    using Done = std::function<void(Result<Access>)>;

    Credentials(Loop &loop, KubeOptions options) : loop_(loop), options_(std::move(options)) {}

    /// Reads files anew, and asks a plugin if what it has handed out has expired or is `refused`. Calls `done` once,
    /// maybe before it returns; must not be called before that has happened.
    void get(bool refused, const Done &done);

private:
    void on_handed_out(Access access, Result<ExecCredential> credential, const Done &done);

    Loop &loop_;
    KubeOptions options_;
    std::optional<ExecPlugin> plugin_; ///< which has handed out `credential_`
    ExecCredential credential_;
    std::unique_ptr<ExecRun> run_;
};

} // namespace thruway
