// SPDX-License-Identifier: Apache-2.0
#include "agent/observe/health.h"

#include "agent/kube/time.h"

#include <nlohmann/json.hpp>

namespace thruway {

HttpResponse health_report(const Health &health)
{
    using json = nlohmann::ordered_json;
    const bool good = health.working && health.eligible.value_or(true);
    // As Go writes a time that is none.
    const std::string updated = health.updated ? time_text(health.updated) : "0001-01-01T00:00:00Z";

    // "lastUpdated" is recent as long as all is well: that is what it meant when it was the only thing to look at.
    json body{{"lastUpdated", good ? time_text(health.now) : updated}, {"currentTime", time_text(health.now)}};
    if (health.eligible)
        body["nodeEligible"] = *health.eligible;
    body["healthy"] = health.working;
    for (const char *family : {"IPv4", "IPv6"})
        body["status"][family] = {{"lastUpdated", updated}, {"healthy", health.working}};
    return {.status = good ? 200 : 503,
            .type = "application/json",
            .body = body.dump(),
            .headers = {{"X-Content-Type-Options", "nosniff"}}};
}

} // namespace thruway
