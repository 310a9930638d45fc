// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/node.h"

#include "agent/kube/fields.h"

#include <string_view>
#include <utility>
#include <vector>

namespace thruway {
namespace {

/// Whether the cluster autoscaler is about to delete the node (cluster-autoscaler/utils/taints).
bool to_be_deleted(Field &taints)
{
    bool found = false;
    taints.each_item([&](Field taint, size_t) {
        taint.each_field([&](std::string_view key, Field value) {
            if (key == "key")
                found = found || value.text() == "ToBeDeletedByClusterAutoscaler";
        });
    });
    return found;
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

void read_spec(Field &spec, Node &node)
{
    std::vector<std::string_view> plural;
    std::string_view singular;
    spec.each_field([&](std::string_view key, Field value) {
        if (key == "podCIDRs")
            plural = read_texts(value);
        else if (key == "podCIDR")
            singular = value.text();
        else if (key == "taints")
            node.leaving = node.leaving || to_be_deleted(value);
    });
    node.pod_cidrs = parse_all(plural_or(std::move(plural), singular), &Prefix::parse, "spec.podCIDRs", "a CIDR block",
                               spec.faults());
}

} // namespace

Node read_node(Field &root, const Metadata &metadata)
{
    Node node;
    node.zone = Symbol(metadata.zone);
    node.leaving = metadata.deleted;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "spec")
            read_spec(value, node);
        else if (key == "status")
            value.each_field([&](std::string_view name, Field field) {
                if (name == "addresses")
                    node.addresses = read_internal_addresses(field);
            });
    });
    return node;
}

} // namespace thruway
