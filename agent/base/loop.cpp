// SPDX-License-Identifier: Apache-2.0
#include "agent/base/loop.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/eventfd.h>

namespace thruway {

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
{
    // Only a process out of descriptors or memory gets here: nothing could go on.
    if (!epoll_ || !wake_ || !watch(wake_.get(), [this] { run_posted(); }))
        throw std::runtime_error("cannot create an event loop");
}

Result<> Loop::watch(int fd, Task task, Ready ready)
{
    epoll_event event{};
    event.events = ready == Ready::read ? EPOLLIN : EPOLLOUT;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return fail_errno("cannot watch descriptor {}", fd);
    watched_[fd] = std::move(task);
    return {};
}

void Loop::forget(int fd)
{
    if (watched_.erase(fd) > 0)
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Loop::Timer Loop::after(Clock::duration delay, Task task)
{
    const Timer timer = next_timer_++;
    const auto when = Clock::now() + delay;
    timers_.emplace(std::pair(when, timer), std::move(task));
    due_.emplace(timer, when);
    return timer;
}

void Loop::cancel(Timer timer)
{
    if (auto found = due_.find(timer); found != due_.end()) {
        timers_.erase({found->second, timer});
        due_.erase(found);
    }
}

void Loop::post(Task task)
{
    {
        const std::lock_guard guard(mutex_);
        posted_.push_back(std::move(task));
    }
    const uint64_t one = 1;
    // A full counter means that a wake-up is pending anyway.
    [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof(one));
}

void Loop::run()
{
    std::array<epoll_event, 32> events{};
    while (!stopped_) {
        const int count = epoll_wait(epoll_.get(), events.data(), events.size(), wait_milliseconds());
        for (int i = 0; i < count && !stopped_; i++) {
            // An earlier task of this round may have forgotten this descriptor; it may also forget itself.
            if (auto found = watched_.find(events.at(i).data.fd); found != watched_.end()) {
                const Task task = found->second;
                task();
            }
        }
        run_timers();
    }
}

int Loop::wait_milliseconds() const
{
    if (timers_.empty())
        return -1;
    const auto left = timers_.begin()->first.first - Clock::now();
    const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    return static_cast<int>(std::clamp<int64_t>(rounded, 0, 60'000));
}

void Loop::run_timers()
{
    const auto now = Clock::now();
    while (!stopped_ && !timers_.empty() && timers_.begin()->first.first <= now) {
        auto node = timers_.extract(timers_.begin());
        due_.erase(node.key().second);
        node.mapped()();
    }
}

void Loop::run_posted()
{
    uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof(count));
    std::vector<Task> tasks;
    {
        const std::lock_guard guard(mutex_);
        tasks.swap(posted_);
    }
    for (auto &task : tasks) {
        if (stopped_)
            return;
        task();
    }
}

} // namespace thruway
