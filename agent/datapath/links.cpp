// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/links.h"

#include "agent/base/fd.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <charconv>
#include <fcntl.h>
#include <filesystem>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <optional>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace thruway {
namespace {

namespace fs = std::filesystem;

/// All clsact filters of ours have this handle and priority, so that they can be replaced in place and told from
/// others.
constexpr uint32_t filter_handle = 0x7477;
constexpr uint32_t filter_priority = 0x7477;

/// What a pin says when there is no link behind it but a clsact filter: bpffs keeps symbolic links, but no files.
constexpr const char *filter_mark = "clsact";

uint32_t program_id(int fd)
{
    bpf_prog_info info{};
    uint32_t length = sizeof(info);
    return bpf_prog_get_info_by_fd(fd, &info, &length) == 0 ? info.id : 0;
}

bpf_tc_hook tc_hook(unsigned ifindex, bpf_attach_type type)
{
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = type == BPF_TCX_INGRESS ? BPF_TC_INGRESS : BPF_TC_EGRESS;
    return hook;
}

bpf_tc_opts our_filter()
{
    bpf_tc_opts filter{};
    filter.sz = sizeof(filter);
    filter.handle = filter_handle;
    filter.priority = filter_priority;
    return filter;
}

/// What the name of a device's pin says.
struct PinName {
    const Hook *hook;
    unsigned ifindex;
};

std::optional<PinName> parse_pin(std::string_view name)
{
    const auto dash = name.rfind('-');
    const auto *hook = std::ranges::find(hooks, name.substr(0, dash), &Hook::program);
    unsigned ifindex = 0;
    if (dash == std::string_view::npos || hook == hooks.end() ||
        std::from_chars(name.data() + dash + 1, name.data() + name.size(), ifindex).ec != std::errc{})
        return std::nullopt;
    return PinName{hook, ifindex};
}

/// Removes a pin and what stands for it. A link goes with its last name, too, but only some time later.
void remove_pin(const fs::path &path)
{
    std::error_code error;
    const auto name = parse_pin(path.filename().string());
    if (name && fs::is_symlink(path, error)) {
        const bpf_tc_hook hook = tc_hook(name->ifindex, name->hook->type);
        const bpf_tc_opts filter = our_filter();
        bpf_tc_detach(&hook, &filter);
    } else if (const Fd link(bpf_obj_get(path.c_str())); link) {
        bpf_link_detach(link.get());
    }
    fs::remove(path, error);
}

/// The pinned link carries the program now, whatever it was before. False if it is not of this target.
template<typename Matches>
bool update_pinned(const std::string &path, int program, Matches matches)
{
    const Fd pinned(bpf_obj_get(path.c_str()));
    bpf_link_info info{};
    uint32_t length = sizeof(info);
    return pinned && bpf_link_get_info_by_fd(pinned.get(), &info, &length) == 0 && matches(info) &&
           (info.prog_id == program_id(program) || bpf_link_update(pinned.get(), program, nullptr) == 0);
}

Result<> create_pinned(const std::string &path, const Hook &hook, int program, int target, uint32_t flags = 0)
{
    ::unlink(path.c_str());
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = flags;
    const Fd link(bpf_link_create(program, target, hook.type, &options));
    if (!link)
        return fail_errno("link");
    if (bpf_obj_pin(link.get(), path.c_str()) != 0)
        return fail_errno("cannot pin {}", path);
    return {};
}

} // namespace

std::string Links::path(const Hook &hook, unsigned ifindex) const
{
    return fmt::format("{}/{}-{}", folder_, hook.program, ifindex);
}

Result<> Links::attach_tcx(const Hook &hook, int program, unsigned ifindex) const
{
    const std::string pin = path(hook, ifindex);
    // A link whose device is gone has no device; the number may be another one's by now.
    if (update_pinned(pin, program, [&](const bpf_link_info &info) { return info.tcx.ifindex == ifindex; }))
        return {};
    return create_pinned(pin, hook, program, static_cast<int>(ifindex));
}

Result<> Links::attach_clsact(const Hook &hook, int program, unsigned ifindex) const
{
    const std::string pin = path(hook, ifindex);
    if (::symlink(filter_mark, pin.c_str()) != 0 && errno != EEXIST) // before the filter: none is ever forgotten
        return fail_errno("cannot create {}", pin);
    return attach_filter(hook, program, ifindex);
}

Result<> Links::attach_xdp(const Hook &hook, int program, unsigned ifindex) const
{
    const std::string pin = path(hook, ifindex);
    if (update_pinned(pin, program, [&](const bpf_link_info &info) { return info.xdp.ifindex == ifindex; }))
        return {};
    return create_pinned(pin, hook, program, static_cast<int>(ifindex), XDP_FLAGS_DRV_MODE);
}

uint32_t Links::xdp_program(const Hook &hook, unsigned ifindex) const
{
    const Fd pinned(bpf_obj_get(path(hook, ifindex).c_str()));
    bpf_link_info info{};
    uint32_t length = sizeof(info);
    if (!pinned || bpf_link_get_info_by_fd(pinned.get(), &info, &length) != 0 || info.xdp.ifindex != ifindex)
        return 0;
    return info.prog_id;
}

Result<> Links::attach_cgroup(const Hook &hook, int program, const std::string &cgroup) const
{
    const std::string pin = fmt::format("{}/{}", folder_, hook.program);
    const Fd folder(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat status{};
    struct statfs system{};
    if (!folder || ::fstat(folder.get(), &status) != 0 || ::fstatfs(folder.get(), &system) != 0)
        return fail_errno("cannot open it");
    if (system.f_type != CGROUP2_SUPER_MAGIC)
        return fail("it is no cgroup2 folder");
    if (update_pinned(pin, program, [&](const auto &info) { return info.cgroup.cgroup_id == status.st_ino; }))
        return {};
    return create_pinned(pin, hook, program, folder.get());
}

void Links::detach(const Hook &hook, unsigned ifindex) const
{
    remove_pin(path(hook, ifindex));
}

void Links::detach(const Hook &hook) const
{
    remove_pin(fmt::format("{}/{}", folder_, hook.program));
}

void Links::detach_others(const std::function<bool(unsigned ifindex)> &keep) const
{
    std::error_code error;
    std::vector<fs::path> others;
    for (const auto &entry : fs::directory_iterator(folder_, error))
        if (const auto name = parse_pin(entry.path().filename().string()); name && !keep(name->ifindex))
            others.push_back(entry.path());
    for (const fs::path &pin : others)
        remove_pin(pin);
}

void Links::detach_all() const
{
    detach_others([](unsigned) { return false; });
    for (const Hook &hook : hooks)
        detach(hook);
}

Result<> attach_filter(const Hook &hook, int program, unsigned ifindex)
{
    bpf_tc_hook where = tc_hook(ifindex, hook.type);
    bpf_tc_opts filter = our_filter();

    if (bpf_tc_query(&where, &filter) == 0 && filter.prog_id == program_id(program))
        return {};
    if (const int error = bpf_tc_hook_create(&where); error != 0 && error != -EEXIST)
        return fail_code(-error, "clsact");
    filter.prog_fd = program;
    filter.prog_id = 0;
    filter.flags = BPF_TC_F_REPLACE;
    if (const int error = bpf_tc_attach(&where, &filter); error != 0)
        return fail_code(-error, "filter");
    return {};
}

} // namespace thruway
