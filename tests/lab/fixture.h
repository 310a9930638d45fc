// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/file.h"
#include "tools/lab/lab.h"
#include "tools/lab/pods.h"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thruway::lab {

/// A name that no other test's lab has at the time.
std::string unique_name();

/// The value of a result that must be good.
template<typename T>
T must(Result<T> result)
{
    INFO((result ? std::string() : result.error().text()));
    REQUIRE(result.has_value());
    return std::move(*result);
}
void must(const Result<> &result);

/// A small lab without agents that goes down with the test.
Lab plain_lab(Options options = {});

/// What `thruway-lab ask` at a place was told: {"name", "client_address", ...} or {"error"}.
nlohmann::json ask_from(const Lab &lab, const std::string &place, const std::string &transport,
                        const std::string &target);

/// A command that runs on this machine, outside of any lab, by the shell.
struct Shell {
    int code = 0;
    std::string out; ///< standard output and error
};
Shell shell(const std::string &command);

/// The built thruway-lab.
std::string program();

/// Of a process's pid namespace; empty if it is gone.
std::string pid_namespace(pid_t pid);

/// How many processes are in a pid namespace.
size_t processes_in(const std::string &pid_namespace);

} // namespace thruway::lab
