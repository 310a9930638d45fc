// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/features.h"

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cstdarg>
#include <linux/bpf.h>
#include <spdlog/spdlog.h>

namespace thruway {
namespace {

int on_libbpf_print(libbpf_print_level level, const char *format, va_list args)
{
    if (level != LIBBPF_WARN)
        return 0;
    std::array<char, 2048> line{};
    const int length = std::vsnprintf(line.data(), line.size(), format, args);
    std::string text(line.data());
    while (!text.empty() && (text.back() == '\n' || text.back() == ' '))
        text.pop_back();
    spdlog::debug("{}", text);
    if (libbpf_complaint().empty())
        libbpf_complaint() = text.substr(text.rfind('\n') + 1);
    return length;
}

} // namespace

std::string &libbpf_complaint()
{
    static std::string text;
    return text;
}

void hear_libbpf()
{
    libbpf_set_print(on_libbpf_print);
}

Features Features::probe()
{
    hear_libbpf();
    Features features;

    // A link to a device that does not exist: kernels that know the attach type look for the device, others refuse it.
    const std::array<bpf_insn, 2> nothing{{
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    }};
    const Fd program(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "probe", "GPL", nothing.data(), nothing.size(), nullptr));
    if (!program) {
        features.missing.push_back(fmt::format("loading of BPF programs ({})", std::generic_category().message(errno)));
        return features;
    }
    const Fd link(bpf_link_create(program.get(), 0x7fffffff, BPF_TCX_INGRESS, nullptr));
    features.tcx = !link && errno == ENODEV;

    // Uplinks may have any MTU, also one that takes several buffers a frame.
    bpf_prog_load_opts with_frags{};
    with_frags.sz = sizeof(with_frags);
    with_frags.prog_flags = BPF_F_XDP_HAS_FRAGS;
    if (!Fd(bpf_prog_load(BPF_PROG_TYPE_XDP, "probe", "GPL", nothing.data(), nothing.size(), &with_frags)))
        features.missing.emplace_back("XDP programs for frames of several buffers (Linux 5.18)");

    const auto need = [&](bpf_prog_type type, bpf_func_id helper, std::string_view name) {
        if (libbpf_probe_bpf_helper(type, helper, nullptr) != 1)
            features.missing.emplace_back(name);
    };
    need(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_redirect_peer, "bpf_redirect_peer (Linux 5.10)");
    need(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_redirect_neigh, "bpf_redirect_neigh (Linux 5.10)");
    need(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_ktime_get_coarse_ns, "bpf_ktime_get_coarse_ns (Linux 5.11)");
    need(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_set_retval, "bpf_set_retval (Linux 5.18)");
    return features;
}

} // namespace thruway
