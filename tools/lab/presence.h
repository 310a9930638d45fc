// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <chrono>
#include <filesystem>
#include <sys/types.h>

/// How the lab finds its long-lived processes again: each holds a record lock on a file of its own. The kernel says who
/// holds it, in the pid namespace of who asks, and drops it when the process is gone; a pid written down would go
/// stale.
namespace thruway::lab {

/// A process that is there, or, if false, that is not.
struct Presence {
    pid_t pid = 0;
    Fd pidfd;

    explicit operator bool() const { return pid != 0; }
};

/// False if the process is gone.
bool send_signal(const Fd &pidfd, int signal);

/// Takes the lock at `path` for the calling process. The descriptor stays open, and the lock is kept over exec. Makes
/// system calls only, so that a child of a process with threads may use it. False, with errno, if it is taken already.
bool claim_presence(const char *path);

/// Who holds the lock at `path`, if anybody.
Result<Presence> find_presence(const std::filesystem::path &path);

/// Whether the process is gone within `timeout`.
bool wait_gone(const Presence &presence, std::chrono::milliseconds timeout);

/// Sends the signal and waits until the process is gone.
Result<> end_process(const Presence &presence, int signal, std::chrono::milliseconds timeout);

} // namespace thruway::lab
