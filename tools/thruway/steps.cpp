// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/steps.h"

#include "agent/datapath/flows.h"
#include "tools/thruway/flows.h"
#include "tools/thruway/services.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <map>

namespace thruway::cli {
namespace {

std::string_view kind_text(uint32_t kind)
{
    switch (kind) {
#define X(id, name)                                                                                                    \
    case TW_STEP_##id:                                                                                                 \
        return name;
        TW_STEPS_LIST(X)
#undef X
    default:
        return "unknown"; // of a later build than this one, which would have been refused
    }
}

/// The word for a value that counts from 0.
template<size_t N>
std::string_view word(const std::array<std::string_view, N> &words, uint32_t value)
{
    return words.at(std::min<size_t>(value, N - 1));
}

constexpr std::array<std::string_view, 3> found_words{"missing", "found", "stale"};
constexpr std::array<std::string_view, 4> route_words{"endpoint", "node_address", "pod_cidr", "kernel"};
constexpr std::array<std::string_view, 4> deliver_words{"stack", "redirect_peer", "redirect", "redirect_neighbour"};

Row end_of(const tw_end &end, uint8_t protocol, const Terms &terms)
{
    return end_row(Address(end.address), ntohs(end.port), protocol, terms.names);
}

void set_service(Row &row, uint32_t id, const Terms &terms)
{
    if (id == 0)
        return;
    if (const auto found = terms.services.find(id); found != terms.services.end())
        row["service"] = port_row(found->second);
    row["service_id"] = id;
}

void set_flow(Row &row, const tw_step_flow &flow, uint8_t protocol, const Terms &terms)
{
    row["state"] = flow_state_name(static_cast<tw_flow_state>(flow.state));
    row["flags"] = flow_flags(flow.flags);
    if (flow.flags & TW_FLOW_TRANSLATED)
        row["translated"] = {{"source", end_of(flow.source, protocol, terms)},
                             {"destination", end_of(flow.destination, protocol, terms)}};
    set_service(row, flow.service, terms);
    row["next_hop"] = terms.hop(flow.next);
    row["back"] = terms.hop(flow.back);
}

void set_backend(Row &row, const tw_step_backend &backend, uint8_t protocol, const Terms &terms)
{
    row.update(end_of(backend.at, protocol, terms));
    row["index"] = backend.index;
    row["slot"] = backend.slot;
    row["slots"] = {{"base", backend.range.base}, {"count", backend.range.count}};
}

// --- words ---

std::string text_at(const Row &row, const char *key)
{
    const auto found = row.find(key);
    return found == row.end() ? "" : cell_text(*found);
}

/// "default/web-1", "node2"
std::string name_text(const Row &row)
{
    return row.contains("namespace") ? text_at(row, "namespace") + "/" + text_at(row, "name") : text_at(row, "name");
}

/// "the host stack", "pod default/web-1 by tw1", "node node2 by eth0"
std::string hop_words(const Row &hop)
{
    const std::string kind = text_at(hop, "kind");
    if (kind == "stack")
        return "the host stack";
    std::string who = hop.contains("name") ? kind + " " + name_text(hop) : kind;
    if (hop.contains("address"))
        who += fmt::format(fmt::runtime(hop.contains("name") ? " ({})" : " {}"), text_at(hop, "address"));
    return fmt::format("{} by {}", who, text_at(hop, hop.contains("interface") ? "interface" : "ifindex"));
}

std::string service_words(const Row &row)
{
    return row.contains("service") ? port_text(row["service"]) : "number " + text_at(row, "service_id");
}

/// What a flow does to its packets: ", to web-1:8080 (10.244.1.3), seen as 172.20.0.11:49152"
std::string translation_words(const Row &row)
{
    std::string text;
    if (!row.contains("translated"))
        return ", nothing is translated";
    text += ", destination becomes " + end_words(row["translated"]["destination"]);
    const Row &flags = row["flags"];
    if (std::ranges::find(flags, "snat") != flags.end())
        text += ", source becomes " + end_words(row["translated"]["source"]);
    return text;
}

std::string flow_words(const Row &row)
{
    const std::string result = row["result"];
    if (result == "missing")
        return "none is known";
    const std::string text = text_at(row, "state") + translation_words(row);
    if (result == "stale")
        return text + "; an end of it has moved: it is judged again";
    return text + ", next hop is " + hop_words(row["next_hop"]);
}

std::string route_words_of(const Row &row)
{
    const std::string by = row["by"];
    const std::string hop = hop_words(row["next_hop"]);
    if (by == "endpoint")
        return "the address of " + hop;
    if (by == "node_address")
        return "an address of this node: " + hop;
    if (by == "pod_cidr")
        return text_at(row["next_hop"], "kind") == "stack" ? "a pod CIDR of this node, but no pod has the address"
                                                           : "a pod CIDR of " + hop;
    return "the kernel's routing: " + hop;
}

std::string deliver_words_of(const Row &row)
{
    const std::string by = row["by"];
    if (by == "stack")
        return "left to the host stack";
    const Row &hop = row["next_hop"];
    std::string text = by == "redirect_peer" ? "redirected into " : "redirected to ";
    text += hop_words(hop);
    if (by == "redirect_neighbour")
        text += ", whose MAC the kernel looks up";
    else if (hop.contains("mac"))
        text += ", MAC " + text_at(hop, "mac");
    return text + ", MTU " + text_at(hop, "mtu");
}

std::string drop_words(const Row &row)
{
    return fmt::format("{}: {}", text_at(row, "reason"), text_at(row, "meaning"));
}

std::string answer_words(const Row &row)
{
    if (row["by"] == "echo_reply")
        return "an echo reply on behalf of the service";
    if (row["by"] == "refusal")
        return "the sender would be told: TCP by a reset, SCTP by an ABORT, all else by an ICMP error";
    return row["by"] == "reset" ? "a reset would tell the sender" : "an ICMP error would tell the sender";
}

std::string verdict_words(const Row &row)
{
    const std::string verdict = row["verdict"];
    if (verdict == "dropped")
        return "DROPPED, " + drop_words(row);
    if (verdict == "answered")
        return "answered by the datapath itself";
    if (verdict == "refused")
        return "REFUSED at the socket";
    if (verdict == "stack")
        return "handed to the host stack";
    return fmt::format("{} {}", verdict == "delivered" ? "delivered to" : "sent to", hop_words(row["next_hop"]));
}

std::string hook_words(const Row &row)
{
    return fmt::format("{} on {}", text_at(row, "program"), text_at(row, "interface"));
}

std::string socket_words(const Row &row)
{
    if (!row.contains("backend"))
        return fmt::format("service {} has no backend", service_words(row));
    return fmt::format("translated as it dials, to one of {} backends of service {}, here {}", text_at(row, "backends"),
                       service_words(row), end_words(row["backend"]));
}

std::string backend_words(const Row &row)
{
    const auto first = row["slots"]["base"].get<uint32_t>();
    return fmt::format("{}, slot {} of {} to {}", end_words(row), text_at(row, "slot"), first,
                       first + row["slots"]["count"].get<uint32_t>() - 1);
}

std::string packet_words(const Row &row)
{
    return fmt::format("{} from {} to {}", text_at(row, "protocol"), end_words(row["source"]),
                       end_words(row["destination"]));
}

} // namespace

Row step_row(const tw_step &step, uint8_t protocol, const Terms &terms)
{
    Row row{{"step", kind_text(step.kind)}};
    switch (step.kind) {
    case TW_STEP_TUPLE:
        row["protocol"] = transport_name(step.tuple.protocol);
        row["source"] = end_of(step.tuple.source, protocol, terms);
        row["destination"] = end_of(step.tuple.destination, protocol, terms);
        break;
    case TW_STEP_FLOW:
        row["result"] = word(found_words, step.result);
        if (step.result != TW_STEP_MISSING)
            set_flow(row, step.flow, protocol, terms);
        break;
    case TW_STEP_SOURCE:
        row["endpoint"] = terms.hop(step.number);
        break;
    case TW_STEP_FRONTEND:
        set_service(row, step.number, terms);
        break;
    case TW_STEP_BACKEND:
        set_backend(row, step.backend, protocol, terms);
        break;
    case TW_STEP_ROUTE:
        row["by"] = word(route_words, step.result);
        row["next_hop"] = terms.hop(step.number);
        break;
    case TW_STEP_SNAT:
        row["source"] = end_of(step.tuple.source, protocol, terms);
        break;
    case TW_STEP_CREATE:
        set_flow(row, step.flow, protocol, terms);
        break;
    case TW_STEP_DELIVER:
        row["by"] = word(deliver_words, step.result);
        row["next_hop"] = terms.hop(step.nexthop.index);
        break;
    case TW_STEP_DROP:
        row["reason"] = drop_name(static_cast<tw_drop>(step.result));
        row["direction"] = hook_name(static_cast<tw_hook>(step.number));
        row["meaning"] = drop_meaning(static_cast<tw_drop>(step.result));
        break;
    case TW_STEP_ANSWER:
        if (step.result != TW_PASS)
            row["reason"] = drop_name(static_cast<tw_drop>(step.result));
        row["by"] = step.result == TW_PASS                                                   ? "echo_reply"
                    : step.result == TW_DROP_NO_BACKEND || step.result == TW_DROP_NO_SERVICE ? "refusal"
                    : step.result == TW_DROP_NO_CONNECTION                                   ? "reset"
                                                                                             : "icmp_error";
        break;
    default:
        break;
    }
    return row;
}

Row verdict_row(const Walk &walk, const Row &pass, const Terms &terms)
{
    constexpr int drop = 2;     // TC_ACT_SHOT
    constexpr int redirect = 7; // TC_ACT_REDIRECT
    Row row{{"step", "verdict"}};
    Row to = pass;
    if (walk.verdict == drop) {
        row["verdict"] = "dropped";
        if (!walk.steps.empty() && walk.steps.back().kind == TW_STEP_DROP) {
            Row last = step_row(walk.steps.back(), 0, terms);
            last.erase("step");
            row.update(last);
        }
        return row;
    }
    if (walk.verdict == redirect && !walk.steps.empty()) {
        const tw_step &last = walk.steps.back();
        if (last.kind == TW_STEP_ANSWER) {
            row["verdict"] = "answered";
            return row;
        }
        to = terms.hop(last.nexthop.index);
    }
    const std::string kind = text_at(to, "kind");
    row["verdict"] = kind == "stack" ? "stack" : kind == "pod" ? "delivered" : "sent";
    if (kind != "stack")
        row["next_hop"] = to;
    return row;
}

std::string step_words(const Row &row)
{
    static const std::map<std::string, std::string (*)(const Row &), std::less<>> words{
        {"hook", hook_words},
        {"socket", socket_words},
        {"packet", packet_words},
        {"flow", flow_words},
        {"source", [](const Row &r) { return "the address belongs to " + hop_words(r["endpoint"]); }},
        {"frontend", [](const Row &r) { return "of service " + service_words(r); }},
        {"backend", backend_words},
        {"route", route_words_of},
        {"snat", [](const Row &r) { return "the backend sees " + end_words(r["source"]); }},
        {"create", [](const Row &r) { return "a flow would be made" + translation_words(r); }},
        {"deliver", deliver_words_of},
        {"drop", drop_words},
        {"answer", answer_words},
        {"verdict", verdict_words},
    };
    const auto found = words.find(row["step"].get<std::string>());
    return found == words.end() ? "" : found->second(row);
}

std::string end_words(const Row &end)
{
    const std::string text = end_text(end, true);
    return end.contains("name") ? fmt::format("{} ({})", text, end["address"].get<std::string>()) : text;
}

} // namespace thruway::cli
