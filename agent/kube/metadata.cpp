// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/metadata.h"

#include "agent/kube/time.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>

namespace thruway {
namespace {

/// A time that cannot be read takes nothing from the object but itself.
int64_t read_time(Field &field)
{
    const std::string_view text = field.text();
    if (text.empty())
        return 0;
    const auto time = parse_time(text);
    if (!time)
        field.skip(fmt::format("{} is not a time (RFC 3339)", quoted(text)));
    return time.value_or(0);
}

void read_labels(Field &labels, Metadata &metadata)
{
    labels.each_field([&](std::string_view key, Field label) {
        if (key == "kubernetes.io/service-name")
            metadata.service = label.text();
        else if (key == "service.kubernetes.io/service-proxy-name")
            metadata.foreign_proxy = true;
        else if (key == "service.kubernetes.io/headless")
            metadata.headless = true;
        else if (key == "topology.kubernetes.io/zone")
            metadata.zone = label.text();
    });
}

/// Names become part of keys and of messages, so they are held to the characters of a DNS name, which the API server
/// does as well.
bool is_name(std::string_view text)
{
    constexpr size_t longest = 253;
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    };
    return !text.empty() && text.size() <= longest && std::ranges::all_of(text, allowed);
}

} // namespace

Metadata read_metadata(Field &field)
{
    Metadata metadata;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "name")
            metadata.name = value.text();
        else if (key == "namespace")
            metadata.space = value.text();
        else if (key == "resourceVersion")
            metadata.version = value.text();
        else if (key == "creationTimestamp")
            metadata.created = read_time(value);
        else if (key == "deletionTimestamp")
            metadata.deleted = !value.text().empty();
        else if (key == "labels")
            read_labels(value, metadata);
        else if (key == "annotations")
            value.each_field([&](std::string_view name, Field annotation) {
                if (name == "endpoints.kubernetes.io/last-change-trigger-time")
                    metadata.triggered = read_time(annotation);
                else if (name == "k8s.io/initial-events-end")
                    metadata.initial_end = annotation.text() == "true";
            });
    });
    return metadata;
}

std::optional<ObjectName> name_of(Kind kind, const Metadata &metadata, Faults &faults)
{
    const bool cluster_wide = kind == Kind::node || kind == Kind::name_space || kind == Kind::service_cidr;
    const std::string_view space = metadata.space.empty() ? "default" : metadata.space;
    if (metadata.name.empty())
        faults.refuse("metadata.name", "missing");
    else if (!is_name(metadata.name))
        faults.refuse("metadata.name", fmt::format("{} is not a name", quoted(metadata.name)));
    else if (!cluster_wide && !is_name(space))
        faults.refuse("metadata.namespace", fmt::format("{} is not a name", quoted(space)));
    else
        return ObjectName{cluster_wide ? Symbol() : Symbol(space), std::string(metadata.name)};
    return std::nullopt;
}

} // namespace thruway
