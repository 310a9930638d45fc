// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/status.h"

#include "agent/base/http_client.h"
#include "agent/datapath/flows.h"
#include "agent/observe/drops.h"
#include "agent/observe/snat.h"
#include "tools/thruway/tables.h"
#include "tools/thruway/views.h"

#include <charconv>
#include <filesystem>
#include <thread>

namespace thruway::cli {
namespace {

namespace fs = std::filesystem;

constexpr int answer_seconds = 2;
constexpr uint64_t full_percent = 90;
constexpr auto flow_look = std::chrono::milliseconds(100);

/// Maps that fill up as the cluster and its traffic grow.
constexpr std::array<std::string_view, 9> filling{"services",       "frontends", "backends", "slots", "endpoints",
                                                  "node_addresses", "nodes",     "flows4",   "flows6"};

void ask_agent(const std::string &run_dir, Status &status)
{
    status.agent["running"] = false;
    auto answer = http_on_socket(run_dir + "/agent.sock", "GET", "/status", "", answer_seconds);
    if (!answer) {
        status.silence = answer.error().text();
        return;
    }
    const Row body = Row::parse(answer->body, nullptr, false);
    if (answer->status != 200 || !body.is_object()) {
        status.silence = fmt::format("it answers with status {}", answer->status);
        return;
    }
    status.agent["running"] = true;
    for (const char *key : {"version", "pid", "node", "source", "synced", "watches", "uplinks", "xdp", "sock"})
        if (body.contains(key))
            status.agent[key] = body[key];
}

/// "from_net-2" is a program of interface 2, "sock_connect4" one of the cgroup.
Attachment attachment_of(const fs::directory_entry &pin)
{
    std::error_code error;
    const std::string name = pin.path().filename();
    const size_t dash = std::min(name.find('-'), name.size());
    Attachment attachment{.program = name.substr(0, dash), .clsact = pin.is_symlink(error)};
    std::from_chars(name.data() + std::min(dash + 1, name.size()), name.data() + name.size(), attachment.ifindex);
    if (attachment.ifindex != 0)
        attachment.interface = interface_name(attachment.ifindex);
    return attachment;
}

std::vector<Attachment> read_attachments(const std::string &bpffs)
{
    std::vector<Attachment> all;
    std::error_code error;
    for (const auto &pin : fs::directory_iterator(bpffs + "/links", error))
        all.push_back(attachment_of(pin));
    std::ranges::sort(all, {}, [](const Attachment &a) { return std::pair(a.ifindex, a.program); });
    return all;
}

Result<std::vector<Fill>> read_fill(const Site &site)
{
    std::vector<Fill> all;
    for (const std::string_view map : filling) {
        auto view = view_of(site, map);
        if (!view)
            return std::unexpected(view.error());
        auto entries = view->count();
        if (!entries)
            return std::unexpected(entries.error());
        all.push_back({std::string(map), *entries, view->capacity});
    }
    return all;
}

/// What happens in the flow table is told by counts that grow while it is being looked at.
Result<> read_flows(const Site &site, Status &status)
{
    auto before = read_flow_events(site.maps);
    if (!before)
        return std::unexpected(before.error());
    each_flow(site.arrays, [&](const Flow &flow) {
        status.flows.at(flow.original.match.source.family() == Family::ipv4 ? 0 : 1)++;
    });
    status.flow_rows = flow_census({&site.arrays.flows4, &site.arrays.flows6});
    status.table_changes = site.arrays.previous != nullptr;
    if (status.table_changes)
        for (const FlowCensus &census : flow_census({&site.arrays.previous->v4, &site.arrays.previous->v6}))
            status.previous_rows += census.total();
    std::this_thread::sleep_for(flow_look);
    auto after = read_flow_events(site.maps);
    if (!after)
        return std::unexpected(after.error());
    status.events = *after;
    for (size_t i = 0; i < status.news.size(); i++)
        status.news.at(i) = after->at(i) - before->at(i);
    return {};
}

Result<Status> read_status(const Site &site)
{
    Status status;
    ask_agent(site.run_dir, status);
    std::error_code error;
    status.names_saved = fs::exists(site.run_dir + "/objects", error);
    status.layout_version = site.arrays.layout[0].version;
    status.attachments = read_attachments(site.bpffs);
    auto fill = read_fill(site);
    if (!fill)
        return std::unexpected(fill.error());
    status.fill = std::move(*fill);
    if (auto flows = read_flows(site, status); !flows)
        return std::unexpected(flows.error());
    auto endpoints = read_endpoints(site);
    if (!endpoints)
        return std::unexpected(endpoints.error());
    status.endpoints = endpoints->size();
    auto drops = read_drops(site.maps);
    if (!drops)
        return std::unexpected(drops.error());
    for (const DropCount &drop : *drops) {
        status.dropped_packets += drop.packets;
        status.dropped_bytes += drop.bytes;
    }
    auto snat = read_snat(site.maps);
    if (!snat)
        return std::unexpected(snat.error());
    status.snat = *snat;
    return status;
}

bool on_uplink(const Attachment &attachment)
{
    return attachment.program == "from_net";
}

Row program_row(const Attachment &attachment)
{
    Row row{{"name", attachment.program}};
    if (attachment.ifindex == 0) {
        row["attached_by"] = "cgroup";
        return row;
    }
    if (attachment.program == "xdp_net")
        row["attached_by"] = "xdp";
    else
        row["attached_by"] = attachment.clsact ? "clsact" : "tcx";
    set_text(row, "interface", attachment.interface);
    row["ifindex"] = attachment.ifindex;
    return row;
}

/// What the kernel was found to have when the agent attached to its uplinks, with what takes its place if not.
Row feature_rows(const std::vector<Attachment> &attachments)
{
    const auto uplink = std::ranges::find_if(attachments, on_uplink);
    if (uplink == attachments.end())
        return Row::array();
    Row tcx{{"name", "tcx"}, {"available", !uplink->clsact}};
    if (uplink->clsact)
        tcx["instead"] = "clsact";
    return Row::array({tcx});
}

std::string agent_text(const Row &row)
{
    const Row &agent = row["agent"];
    if (!agent.value("running", false))
        return "does not run";
    return fmt::format("version {}, pid {}, node {}, {}", agent.value("version", "?"), agent.value("pid", 0),
                       agent.value("node", "?"), agent.value("synced", false) ? "synced" : "not synced yet");
}

/// One line for each interface: "eth0: from_net, to_net (tcx)".
std::string programs_text(const Row &row)
{
    std::string text;
    std::string place;
    for (const Row &program : row["programs"]) {
        const std::string by = program["attached_by"];
        std::string at = by;
        if (program.contains("ifindex"))
            at = fmt::format("{} by {}", program.value("interface", "interface " + program["ifindex"].dump()), by);
        if (at == place)
            text += ", ";
        else
            text += (text.empty() ? "" : "\n") + at + ": ";
        text += program["name"].get<std::string>();
        place = std::move(at);
    }
    return text;
}

/// One line for each uplink: "eth0: native".
std::string xdp_text(const Row &row)
{
    std::string text;
    for (const Row &uplink : row["agent"].value("xdp", Row::array()))
        text += fmt::format("{}{}: {}{}", text.empty() ? "" : "\n", uplink.value("interface", "?"),
                            uplink.value("mode", "?"),
                            uplink.contains("reason") ? ", " + uplink["reason"].get<std::string>() : "");
    return text;
}

std::string features_text(const Row &row)
{
    std::string text;
    for (const Row &feature : row["features"])
        text += (text.empty() ? "" : "\n") + feature["name"].get<std::string>() +
                (feature.contains("instead") ? ": no, instead " + feature["instead"].get<std::string>() : ": yes");
    return text;
}

std::string maps_text(const Row &row)
{
    std::string text;
    for (const Row &map : row["maps"])
        text += fmt::format("{}{} {} of {}", text.empty() ? "" : "\n", map["name"].get<std::string>(),
                            map["entries"].get<uint64_t>(), map["capacity"].get<uint64_t>());
    return text;
}

std::string seconds_text(const Row &row, const char *key)
{
    return row.contains(key) ? fmt::format("{:.0f} s ago", row[key].get<double>()) : "never";
}

/// One line for each watch: "services: watching, 12 objects, version 4711 (3 s ago), last event 8 s ago, ...".
std::string watches_text(const Row &row)
{
    std::string text;
    for (const Row &watch : row["agent"].value("watches", Row::array())) {
        text += fmt::format("{}{}: {}, {} objects, version {} ({}), last event {}, {} bytes, {} reconnects",
                            text.empty() ? "" : "\n", watch.value("resource", "?"), watch.value("state", "?"),
                            watch.value("objects", uint64_t{0}), watch.value("resource_version", "none"),
                            seconds_text(watch, "resource_version_age_seconds"),
                            seconds_text(watch, "last_event_age_seconds"), watch.value("bytes", uint64_t{0}),
                            watch.value("reconnects", uint64_t{0}));
        if (watch.contains("last_error"))
            text += fmt::format(", last error {}: {}", seconds_text(watch, "last_error_age_seconds"),
                                watch.value("last_error", ""));
    }
    return text;
}

std::string lines_text(const Row &row)
{
    std::string text;
    for (const Row &line : row["attention"])
        text += (text.empty() ? "" : "\n") + line.get<std::string>();
    return text;
}

/// What goes on in a flow table that is short of room, in plain words.
void tell_flows(const Status &status, std::vector<std::string> &lines)
{
    const auto now = [&](tw_flow_event event) { return status.news.at(event); };
    for (size_t i = 0; i < status.flow_rows.size(); i++) {
        const FlowCensus &census = status.flow_rows.at(i);
        const uint64_t waiting = uint64_t{census.rows[TW_FLOW_HALF_OPEN]} + census.rows[TW_FLOW_ANSWERED];
        if (waiting * 2 > census.total() && now(TW_FLOW_EVENT_EVICTED_HALF_OPEN) > 0)
            lines.push_back(
                fmt::format("many connections are opened and not completed (a SYN flood?): {} of {} {} flow rows are "
                            "half-open, and "
                            "the oldest of them give way to new ones; established connections stay as they are",
                            waiting, census.total(), i == 0 ? "IPv4" : "IPv6"));
    }
    if (now(TW_FLOW_EVENT_EVICTED_ONE_WAY) > 0)
        lines.emplace_back(
            "the flow table is short of room: exchanges that nobody answers (UDP, ICMP) give way to new ones, "
            "the oldest first");
    if (now(TW_FLOW_EVENT_FULL) > 0)
        lines.push_back(
            fmt::format("the flow table is full of live connections: new ones are refused, {} up to now "
                        "(drop reason flows_full); enlarge it with sizes.flows, the agent moves what there is",
                        status.events[TW_FLOW_EVENT_FULL]));
    if (status.table_changes)
        lines.push_back(fmt::format("the flow table is changing its size or layout: {} rows have not moved yet",
                                    status.previous_rows));
}

} // namespace

std::vector<std::string> attention(const Status &status)
{
    std::vector<std::string> lines;
    if (!status.agent.value("running", false))
        lines.push_back(
            "the agent does not run: traffic goes on as it was, but nothing follows the cluster's changes; " +
            status.silence);
    else if (!status.agent.value("synced", false))
        lines.emplace_back("the agent does not know the whole cluster yet: the maps are as the agent before left them");
    for (const Row &watch : status.agent.value("watches", Row::array()))
        if (watch.contains("trouble"))
            lines.push_back(
                fmt::format("{} are not followed: {}", watch.value("resource", "?"), watch.value("trouble", "")));
    if (!status.names_saved)
        lines.emplace_back("no objects are saved in the run directory (--run-dir): addresses are shown without names");
    if (std::ranges::none_of(status.attachments, on_uplink))
        lines.emplace_back("no uplink has programs: nothing from outside the node is served");
    for (const Fill &fill : status.fill)
        if (fill.entries * 100 >= fill.capacity * full_percent)
            lines.push_back(
                fmt::format("map {} is nearly full: {} of {} entries", fill.map, fill.entries, fill.capacity));
    tell_flows(status, lines);
    return lines;
}

Row status_row(const Status &status)
{
    Row row{{"attention", attention(status)}, {"agent", status.agent}, {"layout_version", status.layout_version}};
    row["programs"] = Row::array();
    for (const Attachment &attachment : status.attachments)
        row["programs"].push_back(program_row(attachment));
    row["features"] = feature_rows(status.attachments);
    row["maps"] = Row::array();
    for (const Fill &fill : status.fill)
        row["maps"].push_back({{"name", fill.map}, {"entries", fill.entries}, {"capacity", fill.capacity}});
    row["endpoints"] = status.endpoints;
    row["flows"] = {{"ipv4", status.flows[0]}, {"ipv6", status.flows[1]}};
    row["flow_events"] = Row::object();
    for (size_t i = 0; i < status.events.size(); i++)
        row["flow_events"][std::string(flow_event_name(static_cast<tw_flow_event>(i)))] = status.events.at(i);
    row["drops"] = {{"packets", status.dropped_packets}, {"bytes", status.dropped_bytes}};
    row["snat"] = {
        {"ports", status.snat.ports}, {"collisions", status.snat.collisions}, {"exhausted", status.snat.exhausted}};
    return row;
}

Listing status_report(const Site &site)
{
    return {.shape = Shape::record,
            .columns = {{"ATTENTION", lines_text},
                        {"AGENT", agent_text},
                        column("UPLINKS", "/agent/uplinks"),
                        wide(column("SOURCE", "/agent/source")),
                        column("LAYOUT VERSION", "/layout_version"),
                        {"WATCHES", watches_text},
                        {"PROGRAMS", programs_text},
                        {"XDP", xdp_text},
                        {"FEATURES", features_text},
                        {"MAPS", maps_text},
                        column("ENDPOINTS", "/endpoints"),
                        column("FLOWS IPV4", "/flows/ipv4"),
                        column("FLOWS IPV6", "/flows/ipv6"),
                        column("DROPPED PACKETS", "/drops/packets"),
                        column("SNAT PORTS", "/snat/ports"),
                        column("SNAT COLLISIONS", "/snat/collisions"),
                        column("SNAT EXHAUSTED", "/snat/exhausted")},
            .produce = [&site](const Sink &sink) -> Result<> {
                auto status = read_status(site);
                if (!status)
                    return std::unexpected(status.error());
                sink(status_row(*status));
                return {};
            }};
}

} // namespace thruway::cli
