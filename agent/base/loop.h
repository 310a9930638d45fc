// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace thruway {

/// The agent's one thread of control: file descriptors, timers, and work handed over by other threads. Everything that
/// touches state, planner or datapath runs in here, one thing at a time.
class Loop {
public:
    using Clock = std::chrono::steady_clock;
    using Task = std::function<void()>;
    using Timer = uint64_t;

    Loop();

    enum class Ready : uint8_t { read, write };

    /// Calls `task` whenever `fd` has something to read, or room to write, until forget(fd).
    Result<> watch(int fd, Task task, Ready ready = Ready::read);
    void forget(int fd);

    /// Calls `task` once.
    Timer after(Clock::duration delay, Task task);
    void cancel(Timer timer);

    /// Hands work over; the only member that other threads may call.
    void post(Task task);

    /// Runs until stop().
    void run();
    void stop() { stopped_ = true; }
    /// May be called by other threads.
    [[nodiscard]] bool stopped() const { return stopped_; }

private:
    [[nodiscard]] int wait_milliseconds() const;
    void run_timers();
    void run_posted();

    Fd epoll_;
    Fd wake_;
    std::atomic<bool> stopped_ = false;
    std::unordered_map<int, Task> watched_;
    std::map<std::pair<Clock::time_point, Timer>, Task> timers_;
    std::unordered_map<Timer, Clock::time_point> due_;
    Timer next_timer_ = 1;
    std::mutex mutex_; // guards posted_
    std::vector<Task> posted_;
};

} // namespace thruway
