// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/event.h"

#include "agent/kube/time.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace thruway {
namespace {

std::string space_of(const Event &event)
{
    const std::string_view space = event.regarding.name.space.text();
    return space.empty() ? "default" : std::string(space);
}

} // namespace

std::string event_path(const Event &event)
{
    return fmt::format("/apis/events.k8s.io/v1/namespaces/{}/events", space_of(event));
}

std::string event_body(const Event &event, const std::string &node, int64_t microseconds)
{
    const ObjectKey &about = event.regarding;
    nlohmann::json regarding{{"apiVersion", "v1"}, {"kind", kind_name(about.kind)}, {"name", about.name.name}};
    // "kubectl describe node" looks for a uid that is the name (kubectl pkg/describe), which is what kube-proxy writes.
    if (about.kind == Kind::node)
        regarding["uid"] = about.name.name;
    else
        regarding["namespace"] = space_of(event);
    const nlohmann::json body{
        {"apiVersion", "events.k8s.io/v1"},
        {"kind", "Event"},
        {"metadata", {{"name", fmt::format("{}.{:x}", about.name.name, microseconds)}, {"namespace", space_of(event)}}},
        {"eventTime", time_text(microseconds)},
        {"type", event.warning ? "Warning" : "Normal"},
        {"reason", event.reason},
        {"action", event.action},
        {"note", event.note},
        {"reportingController", "thruway"},
        {"reportingInstance", "thruway-" + node},
        {"regarding", regarding}};
    return body.dump();
}

} // namespace thruway
