// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/presence.h"

#include <csignal>
#include <fcntl.h>
#include <poll.h>

// The C library's header of Debian 12 forgets that C++ reads it.
extern "C" {
#include <sys/pidfd.h>
}

namespace thruway::lab {
namespace {

/// 0: nobody.
Result<pid_t> holder(int file)
{
    struct flock query{};
    query.l_type = F_WRLCK;
    query.l_whence = SEEK_SET;
    if (::fcntl(file, F_GETLK, &query) != 0)
        return fail_errno("cannot ask for a lock");
    if (query.l_type == F_UNLCK)
        return 0;
    if (query.l_pid <= 0)
        return fail("a lock is held by a process outside of this pid namespace");
    return query.l_pid;
}

} // namespace

bool send_signal(const Fd &pidfd, int signal)
{
    return ::pidfd_send_signal(pidfd.get(), signal, nullptr, 0) == 0;
}

bool claim_presence(const char *path)
{
    const int file = ::open(path, O_RDWR | O_CREAT, 0600);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return file >= 0 && ::fcntl(file, F_SETLK, &lock) == 0;
}

Result<Presence> find_presence(const std::filesystem::path &path)
{
    const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!file) {
        if (errno == ENOENT)
            return Presence();
        return fail_errno("cannot open {}", path.native());
    }
    auto before = holder(file.get());
    if (!before)
        return fail_within(path.native(), before.error());
    if (*before == 0)
        return Presence();

    Presence presence{.pid = *before, .pidfd = Fd(::pidfd_open(*before, 0))};
    // Only if the lock is still held is the pid still that of the process that we meant.
    auto after = holder(file.get());
    if (!after)
        return fail_within(path.native(), after.error());
    if (!presence.pidfd || *after != *before)
        return Presence();
    return presence;
}

bool wait_gone(const Presence &presence, std::chrono::milliseconds timeout)
{
    pollfd end{.fd = presence.pidfd.get(), .events = POLLIN, .revents = 0};
    return ::poll(&end, 1, static_cast<int>(timeout.count())) == 1;
}

Result<> end_process(const Presence &presence, int signal, std::chrono::milliseconds timeout)
{
    if (!send_signal(presence.pidfd, signal) && errno != ESRCH)
        return fail_errno("cannot signal process {}", presence.pid);
    if (!wait_gone(presence, timeout))
        return fail("process {} did not end within {} ms of signal {}", presence.pid, timeout.count(), signal);
    return {};
}

} // namespace thruway::lab
