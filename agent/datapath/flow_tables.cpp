// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/flow_tables.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <optional>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace thruway {
namespace {

/// The current and the previous table of a family, as far as they are pinned.
struct Pinned {
    std::string current_path;
    std::string previous_path;
    Map current;
    std::optional<Map> previous;

    /// The current table is not the previous one under its old name.
    [[nodiscard]] bool replaced() const { return previous && previous->id() != current.id(); }
};

Result<Pinned> read_pins(const std::string &bpffs, const char *current, const char *previous)
{
    Pinned pinned{fmt::format("{}/{}", bpffs, current), fmt::format("{}/{}", bpffs, previous), {}, {}};
    auto map = Map::open(pinned.current_path, current);
    if (!map)
        return std::unexpected(map.error());
    pinned.current = std::move(*map);
    if (auto before = Map::open(pinned.previous_path, previous))
        pinned.previous = std::move(*before);
    return pinned;
}

Result<> replace(const Pinned &pinned, uint32_t buckets)
{
    if (pinned.replaced())
        return {};
    if (!pinned.previous && bpf_obj_pin(pinned.current.fd(), pinned.previous_path.c_str()) != 0)
        return fail_errno("cannot pin {}", pinned.previous_path);
    bpf_map_create_opts options{};
    options.sz = sizeof(options);
    options.map_flags = pinned.current.flags();
    const Fd fresh(bpf_map_create(BPF_MAP_TYPE_ARRAY, pinned.current.name().c_str(), sizeof(uint32_t),
                                  pinned.current.value_size(), buckets, &options));
    if (!fresh)
        return fail_errno("cannot create map {} of {} entries", pinned.current.name(), buckets);
    return pin_over(fresh.get(), pinned.current_path);
}

} // namespace

Result<> prepare_flow_tables(const std::string &bpffs, uint32_t rows)
{
    auto map = Map::open(bpffs + "/layout", "layout");
    if (!map) // nothing has run here
        return {};
    auto mapped = MappedArray<tw_layout>::of(*map, true);
    if (!mapped)
        return std::unexpected(mapped.error());
    tw_layout &layout = (*mapped)[0];
    if (layout.version == 0) // the first start was cut short
        return {};
    if (layout.version > TW_LAYOUT_VERSION)
        return fail(
            "{} holds maps of layout version {}, this agent knows version {} and what was before it: run that "
            "agent, or take them down with \"thruway-agent cleanup\" (this ends the connections that they carry)",
            bpffs, layout.version, TW_LAYOUT_VERSION);
    if (layout.version == 1) // it had no such word
        layout.carries = 1;
    auto flows4 = read_pins(bpffs, "flows4", "previous4");
    auto flows6 = read_pins(bpffs, "flows6", "previous6");
    for (const auto *pins : {&flows4, &flows6})
        if (!*pins)
            return std::unexpected(pins->error());

    const bool begun = flows4->previous || flows6->previous;
    uint32_t buckets = flow_buckets(rows);
    if (begun && layout.version != TW_LAYOUT_VERSION)
        return fail("the flow table at {} is being changed by an agent of layout version {}: let that one finish",
                    bpffs, layout.version);
    if (begun && layout.phase == TW_PHASE_CURRENT) {
        if (!flows4->previous || !flows6->previous) // the end was cut short
            drop_previous_flow_tables(bpffs);
        return {};
    }
    if (!begun && flows4->current.capacity() == buckets && flows6->current.capacity() == buckets) {
        publish(layout.phase, uint32_t{TW_PHASE_CURRENT});
        publish(layout.version, uint32_t{TW_LAYOUT_VERSION});
        return {};
    }
    if (!begun)
        spdlog::info("flow table: from {} (layout version {}) to {} buckets", flows4->current.capacity(),
                     layout.version, buckets);
    // From here on an agent of an older version refuses to run: it would take the new tables for its own.
    publish(layout.phase, uint32_t{TW_PHASE_PREVIOUS});
    publish(layout.version, uint32_t{TW_LAYOUT_VERSION});
    for (const auto *pins : {&flows4, &flows6}) // the settings may have changed since the run before
        if ((*pins)->replaced())
            buckets = (*pins)->current.capacity();
    for (const auto *pins : {&flows4, &flows6})
        if (auto replaced = replace(**pins, buckets); !replaced)
            return replaced;
    return {};
}

void use_current_flow_tables(Arrays &arrays)
{
    publish(arrays.layout[0].phase, uint32_t{TW_PHASE_CURRENT});
}

void drop_previous_flow_tables(const std::string &bpffs)
{
    for (const char *name : {"/previous4", "/previous6"})
        ::unlink((bpffs + name).c_str());
}

} // namespace thruway
