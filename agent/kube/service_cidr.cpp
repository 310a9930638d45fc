// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/service_cidr.h"

#include "agent/kube/fields.h"

#include <string_view>

namespace thruway {

ServiceCidr read_service_cidr(Field &root)
{
    ServiceCidr range;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "spec")
            value.each_field([&](std::string_view name, Field field) {
                if (name == "cidrs")
                    range.cidrs =
                        parse_all(read_texts(field), &Prefix::parse, "spec.cidrs", "a CIDR block", field.faults());
            });
    });
    return range;
}

} // namespace thruway
