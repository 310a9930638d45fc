// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/clock.h"

#include "agent/base/fd.h"

#include <thruway/flow.h>

#include <array>
#include <bpf/bpf.h>
#include <ctime>
#include <linux/bpf.h>

namespace thruway {
namespace {

constexpr uint64_t second = 1'000'000'000;

uint64_t nanoseconds(const timespec &time)
{
    return static_cast<uint64_t>(time.tv_sec) * second + static_cast<uint64_t>(time.tv_nsec);
}

/// As it was with the last jiffy.
uint64_t monotonic()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return nanoseconds(now);
}

/// Only a program can read them.
Result<Fd> load_reader()
{
    const std::array<bpf_insn, 5> code{{
        {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_6, .src_reg = BPF_REG_1, .off = 0, .imm = 0},
        {.code = BPF_JMP | BPF_CALL, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = BPF_FUNC_jiffies64},
        {.code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_6, .src_reg = BPF_REG_0, .off = 0, .imm = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = 0},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    }};
    bpf_prog_load_opts options{};
    options.sz = sizeof(options);
    options.prog_flags = BPF_F_SLEEPABLE;
    Fd program(bpf_prog_load(BPF_PROG_TYPE_SYSCALL, "jiffies", "GPL", code.data(), code.size(), &options));
    if (!program)
        return fail_errno("cannot load a program that reads jiffies");
    return program;
}

} // namespace

uint32_t jiffy()
{
    timespec resolution{};
    clock_getres(CLOCK_MONOTONIC_COARSE, &resolution); // it moves with jiffies (clock_gettime(2))
    return static_cast<uint32_t>(nanoseconds(resolution));
}

Result<uint64_t> monotonic_less_jiffies()
{
    auto program = load_reader();
    if (!program)
        return std::unexpected(program.error());
    uint64_t jiffies = 0;
    uint64_t before = 0;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.ctx_in = &jiffies;
    options.ctx_size_in = sizeof(jiffies);
    do { // until no jiffy passes meanwhile
        before = monotonic();
        if (const int error = bpf_prog_test_run_opts(program->get(), &options); error != 0)
            return fail_code(-error, "cannot read jiffies");
    } while (monotonic() != before);
    return before - jiffies * jiffy();
}

uint32_t tick_now()
{
    return static_cast<uint32_t>(monotonic() >> TW_CLOCK_SHIFT);
}

uint32_t ticks(uint32_t seconds)
{
    constexpr uint64_t tick = uint64_t{1} << TW_CLOCK_SHIFT;
    return static_cast<uint32_t>((uint64_t{seconds} * second + tick - 1) / tick);
}

} // namespace thruway
