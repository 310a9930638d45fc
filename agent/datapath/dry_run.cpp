// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/dry_run.h"

#include "agent/datapath/features.h"
#include "agent/datapath/object.h"
#include "agent/datapath/programs.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/bpf.h>

namespace thruway {
namespace {

/// A trace of other code than what runs would be worse than none.
std::unexpected<Error> other_build()
{
    return fail("the programs that run here are not those of this build: use the thruway that came with the agent");
}

/// Gives the skeleton the constants of the programs that run.
Result<> take_constants(const std::string &bpffs, datapath &skeleton)
{
    const std::string path = fmt::format("{}/programs/{}", bpffs, constants_map);
    const Fd map(bpf_obj_get(path.c_str()));
    bpf_map_info about{};
    uint32_t length = sizeof(about);
    const uint32_t key = 0;

    if (!map && errno == ENOENT)
        return other_build();
    if (!map || bpf_map_get_info_by_fd(map.get(), &about, &length) != 0)
        return fail_errno("cannot open {}", path);
    if (about.value_size != bpf_map__value_size(skeleton.maps.rodata_config))
        return other_build();
    if (bpf_map_lookup_elem(map.get(), &key, skeleton.rodata_config) != 0)
        return fail_errno("cannot read {}", path);
    return {};
}

} // namespace

Result<DryRun> DryRun::load(const std::string &bpffs, const Maps &maps)
{
    hear_libbpf();
    auto skeleton = open_object();
    if (!skeleton)
        return std::unexpected(skeleton.error());
    if (auto taken = take_constants(bpffs, **skeleton); !taken)
        return std::unexpected(taken.error());
    tw_config config = (*skeleton)->rodata_config->config;
    auto layout = MappedArray<tw_layout>::of(maps.layout, false);
    if (!layout)
        return std::unexpected(layout.error());
    if (std::memcmp(digest_of(config, maps).data(), (*layout)[0].programs, sizeof(tw_layout::programs)) != 0)
        return other_build();
    for (const Maps::Member &member : Maps::members) {
        bpf_map *map = bpf_object__find_map_by_name((*skeleton)->obj, std::string(member.name).c_str());
        if (bpf_map__reuse_fd(map, (maps.*member.map).fd()) != 0)
            return fail_errno("map {}", member.name);
    }
    if (config.previous_mask != 0 && (bpf_map__reuse_fd((*skeleton)->maps.previous4, maps.previous4.fd()) != 0 ||
                                      bpf_map__reuse_fd((*skeleton)->maps.previous6, maps.previous6.fd()) != 0))
        return fail_errno("the previous flow table");
    bpf_program *program = nullptr;
    bpf_object__for_each_program(program, (*skeleton)->obj)
    {
        const auto *hook = std::ranges::find(hooks, std::string_view(bpf_program__name(program)), &Hook::program);
        bpf_program__set_autoload(program, hook < hooks.begin() + sockets_first);
    }
    config.dry = 1;
    if (auto loaded = load_object(**skeleton, config); !loaded)
        return std::unexpected(loaded.error());

    DryRun run;
    for (const Hook &hook : std::span(hooks).first(sockets_first)) {
        program = bpf_object__find_program_by_name((*skeleton)->obj, std::string(hook.program).c_str());
        run.programs_.emplace_back(::fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3));
    }
    auto map = Map::adopt(Fd(::fcntl(bpf_map__fd((*skeleton)->maps.steps), F_DUPFD_CLOEXEC, 3)), "steps");
    if (!map)
        return std::unexpected(map.error());
    auto steps = MappedArray<tw_steps>::of(*map, true);
    if (!steps)
        return std::unexpected(steps.error());
    run.steps_ = std::move(*steps);
    return run;
}

Result<Walk> DryRun::run(HookIndex hook, unsigned ifindex, std::span<const uint8_t> frame)
{
    Walk walk;
    __sk_buff context{};
    bpf_test_run_opts options{};

    walk.frame.resize(frame.size() + 256);
    context.ifindex = ifindex;
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<uint32_t>(frame.size());
    options.data_out = walk.frame.data();
    options.data_size_out = static_cast<uint32_t>(walk.frame.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
    steps_[0] = {};
    if (const int error = bpf_prog_test_run_opts(programs_.at(hook).get(), &options); error != 0)
        return fail_code(-error, "{} cannot be tried", hooks.at(hook).program);
    walk.verdict = static_cast<int>(options.retval);
    walk.frame.resize(options.data_size_out);
    walk.steps.assign(steps_[0].step, steps_[0].step + steps_[0].count);
    return walk;
}

} // namespace thruway
