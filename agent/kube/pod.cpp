// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/pod.h"

#include "agent/kube/fields.h"

#include <string_view>
#include <utility>
#include <vector>

namespace thruway {
namespace {

/// `field` of each item of a list of objects.
std::vector<std::string_view> read_texts_of(Field &list, std::string_view field)
{
    std::vector<std::string_view> texts;
    list.each_item([&](Field item, size_t) {
        item.each_field([&](std::string_view key, Field value) {
            if (key == field)
                texts.push_back(value.text());
        });
    });
    return texts;
}

void read_pod_spec(Field &spec, Pod &pod)
{
    spec.each_field([&](std::string_view key, Field value) {
        if (key == "nodeName")
            pod.node = Symbol(value.text());
        else if (key == "hostNetwork")
            pod.host_network = value.flag().value_or(false);
    });
}

void read_pod_status(Field &status, Pod &pod)
{
    std::string_view phase;
    std::vector<std::string_view> plural;
    std::string_view singular;
    status.each_field([&](std::string_view key, Field value) {
        if (key == "phase")
            phase = value.text();
        else if (key == "podIPs")
            plural = read_texts_of(value, "ip");
        else if (key == "podIP")
            singular = value.text();
    });
    pod.finished = phase == "Succeeded" || phase == "Failed";
    pod.addresses = parse_all(plural_or(std::move(plural), singular), &Address::parse_sloppy, "status.podIPs",
                              "an IP address", status.faults());
}

} // namespace

Pod read_pod(Field &root)
{
    Pod pod;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "spec")
            read_pod_spec(value, pod);
        else if (key == "status")
            read_pod_status(value, pod);
    });
    return pod;
}

} // namespace thruway
