// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "tools/lab/keeper.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace thruway::lab {

/// Where in a lab a process lives. Every process of the lab shares its mount and pid namespace.
struct Place {
    std::string netns;            ///< name of its network namespace
    std::filesystem::path cgroup; ///< empty: the one of who starts it
};

struct Command {
    std::vector<std::string> argv;        ///< the first is looked for in PATH
    std::vector<std::string> environment; ///< "KEY=value", beside what the caller has
    int in = 0;                           ///< what becomes its standard input, output and error
    int out = 1;
    int err = 2;
};

/// How a process ended.
struct Exit {
    int code = 0;
    int signal = 0; ///< 0: it ended by itself

    [[nodiscard]] bool good() const { return code == 0 && signal == 0; }

    /// What a shell would call it.
    [[nodiscard]] int shell_code() const { return signal ? 128 + signal : code; }
};

/// A child that runs in the lab. It is killed with the object.
class Process {
public:
    static Result<Process> start(const Keeper &keeper, const Place &place, const Command &command);

    Process(Process &&) = default;
    Process &operator=(Process &&) = delete;
    Process(const Process &) = delete;
    Process &operator=(const Process &) = delete;
    ~Process();

    [[nodiscard]] int pidfd() const { return pidfd_.get(); }
    void signal(int number) const;

    /// Waits for its end; fails if it goes on after `timeout`. To be called until it succeeds once.
    Result<Exit> wait(std::chrono::milliseconds timeout);

private:
    explicit Process(Fd pidfd) : pidfd_(std::move(pidfd)) {}

    Fd pidfd_; ///< empty: waited for
};

/// What a command left.
struct Output {
    Exit exit;
    std::string out;
    std::string err;
};

/// Runs a command with `input` as its standard input and catches what it writes. One that takes longer than `timeout`
/// is killed.
Result<Output> run(const Keeper &keeper, const Place &place, Command command, std::string_view input = {},
                   std::chrono::milliseconds timeout = std::chrono::seconds(60));

/// Starts a command that stays when its starter ends: a child of the keeper that holds the lock at `presence`. Fails if
/// another one holds it.
Result<> start_resident(const Keeper &keeper, const Place &place, const Command &command,
                        const std::filesystem::path &presence);

/// Calls `action` in a short-lived child that is in the lab's mount and pid namespace but has the caller's network
/// namespace. It may make system calls only, as the caller may have threads, and returns 0 or an errno.
Result<> call_inside(const Keeper &keeper, const std::function<int()> &action);

} // namespace thruway::lab
