// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/grace.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <chrono>

namespace thruway {

Result<std::unique_ptr<GracePeriod>> GracePeriod::start()
{
    Fd inner(bpf_map_create(BPF_MAP_TYPE_ARRAY, "grace_inner", sizeof(uint32_t), sizeof(uint32_t), 1, nullptr));
    bpf_map_create_opts options{};
    options.sz = sizeof(options);
    options.inner_map_fd = static_cast<uint32_t>(inner.get());
    Fd outer(bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "grace", sizeof(uint32_t), sizeof(uint32_t), 1, &options));

    if (!inner || !outer)
        return fail_errno("cannot create a map-in-map");
    // The constructor is private: make_unique cannot call it.
    return std::unique_ptr<GracePeriod>(
        new GracePeriod(std::move(inner), std::move(outer))); // NOLINT(cppcoreguidelines-owning-memory)
}

GracePeriod::GracePeriod(Fd inner, Fd outer)
    : inner_(std::move(inner)), outer_(std::move(outer)), thread_([this] { work(); })
{
}

GracePeriod::~GracePeriod()
{
    {
        const std::lock_guard guard(mutex_);
        stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

uint64_t GracePeriod::ticket()
{
    uint64_t ticket = 0;
    {
        const std::lock_guard guard(mutex_);
        ticket = ++wanted_;
    }
    changed_.notify_all();
    return ticket;
}

bool GracePeriod::passed(uint64_t ticket)
{
    const std::lock_guard guard(mutex_);
    return passed_ >= ticket;
}

void GracePeriod::wait(uint64_t ticket)
{
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return passed_ >= ticket; });
}

void GracePeriod::synchronize()
{
    const uint32_t key = 0;
    const int inner = inner_.get();
    // It can only fail for want of memory, which comes back; nothing may be reused before it has worked.
    while (bpf_map_update_elem(outer_.get(), &key, &inner, BPF_ANY) != 0)
        std::this_thread::sleep_for(std::chrono::seconds(1));
}

void GracePeriod::work()
{
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return stopped_ || wanted_ > passed_; });
        if (stopped_)
            return;
        const uint64_t covered = wanted_;
        lock.unlock();
        synchronize();
        lock.lock();
        passed_ = covered;
        changed_.notify_all();
    }
}

} // namespace thruway
