// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

namespace thruway {

/// Tells when no BPF program can still be using what has been unlinked from the maps. A ticket drawn after unlinking is
/// passed once every program that ran at that time has ended.
///
/// The kernel waits for just that, synchronize_rcu(), before an update of a map-in-map returns (kernel/bpf/syscall.c,
/// maybe_wait_bpf_programs); a thread of its own makes such updates, so that nobody else has to wait.
class GracePeriod {
public:
    static Result<std::unique_ptr<GracePeriod>> start();
    GracePeriod(const GracePeriod &) = delete;
    GracePeriod &operator=(const GracePeriod &) = delete;
    ~GracePeriod();

    uint64_t ticket();
    bool passed(uint64_t ticket);

    /// Blocks until the ticket is passed: some milliseconds.
    void wait(uint64_t ticket);

private:
    GracePeriod(Fd inner, Fd outer);
    void work();
    void synchronize();

    Fd inner_;
    Fd outer_;
    std::mutex mutex_; // guards all below
    std::condition_variable changed_;
    uint64_t wanted_ = 0;
    uint64_t passed_ = 0;
    bool stopped_ = false;
    std::thread thread_; // last: it uses all of the above
};

} // namespace thruway
