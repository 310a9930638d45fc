// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/fd.h"

#include <csignal>
#include <optional>
#include <sys/signalfd.h>

namespace thruway::lab {

/// Holds signals back from the process for as long as it lives, and hands them out one by one.
class Signals {
public:
    Signals(std::initializer_list<int> numbers)
    {
        sigemptyset(&set_);
        for (const int number : numbers)
            sigaddset(&set_, number);
        ::sigprocmask(SIG_BLOCK, &set_, &before_);
        fd_ = Fd(::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK));
    }
    Signals(const Signals &) = delete;
    Signals &operator=(const Signals &) = delete;
    ~Signals() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

    /// Readable when a signal has come.
    [[nodiscard]] int fd() const { return fd_.get(); }

    /// The next signal that has come.
    [[nodiscard]] std::optional<signalfd_siginfo> next() const
    {
        signalfd_siginfo info{};
        if (::read(fd_.get(), &info, sizeof(info)) != sizeof(info))
            return std::nullopt;
        return info;
    }

private:
    sigset_t set_{};
    sigset_t before_{};
    Fd fd_;
};

} // namespace thruway::lab
