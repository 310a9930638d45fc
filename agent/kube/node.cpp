// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/node.h"

#include "agent/kube/fields.h"

#include <string_view>
#include <utility>
#include <vector>

namespace thruway {
namespace {

std::vector<Prefix> read_pod_cidrs(Field &spec)
{
    std::vector<std::string_view> plural;
    std::string_view singular;
    spec.each_field([&](std::string_view key, Field value) {
        if (key == "podCIDRs")
            plural = read_texts(value);
        else if (key == "podCIDR")
            singular = value.text();
    });
    return parse_all(plural_or(std::move(plural), singular), &Prefix::parse, "spec.podCIDRs", "a CIDR block",
                     spec.faults());
}

std::vector<Address> read_internal_addresses(Field &list)
{
    std::vector<std::string_view> texts;
    list.each_item([&](Field item, size_t) {
        std::string_view type;
        std::string_view address;
        item.each_field([&](std::string_view key, Field value) {
            if (key == "type")
                type = value.text();
            else if (key == "address")
                address = value.text();
        });
        if (type == "InternalIP")
            texts.push_back(address);
    });
    return parse_all(texts, &Address::parse_sloppy, "status.addresses", "an IP address", list.faults());
}

} // namespace

Node read_node(Field &root, const Metadata &metadata)
{
    Node node;
    node.zone = Symbol(metadata.zone);
    root.each_field([&](std::string_view key, Field value) {
        if (key == "spec")
            node.pod_cidrs = read_pod_cidrs(value);
        else if (key == "status")
            value.each_field([&](std::string_view name, Field field) {
                if (name == "addresses")
                    node.addresses = read_internal_addresses(field);
            });
    });
    return node;
}

} // namespace thruway
