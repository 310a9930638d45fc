// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <fcntl.h>
#include <string>
#include <sys/file.h>

namespace thruway {

/// Holds a file or folder for one process; the kernel lets go of it when the process ends, however it does.
class FileLock {
public:
    /// Fails at once if another process holds it. A file that does not exist is made.
    static Result<FileLock> take(const std::string &path, bool folder)
    {
        FileLock lock;
        lock.fd_ =
            Fd(::open(path.c_str(), folder ? O_RDONLY | O_DIRECTORY | O_CLOEXEC : O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (!lock.fd_)
            return fail_errno("cannot open {}", path);
        if (::flock(lock.fd_.get(), LOCK_EX | LOCK_NB) != 0)
            return fail("{} is in use by another thruway-agent", path);
        return lock;
    }

private:
    Fd fd_;
};

} // namespace thruway
