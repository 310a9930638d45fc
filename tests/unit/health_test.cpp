// SPDX-License-Identifier: Apache-2.0
// What /healthz and /livez say (rule 39).
#include "agent/observe/health.h"

#include <catch2/catch_test_macros.hpp>

using namespace thruway;

namespace {

constexpr int64_t now = 1'767'323'045'678'901;
constexpr int64_t before = now - 60'000'000;

} // namespace

TEST_CASE("rule 39: a node that is in sync and stays is ready, as kube-proxy says it")
{
    const HttpResponse response = health_report({.working = true, .eligible = true, .updated = before, .now = now});
    CHECK(response.status == 200);
    CHECK(response.type == "application/json");
    CHECK(response.headers == decltype(response.headers){{"X-Content-Type-Options", "nosniff"}});
    CHECK(response.body ==
          R"({"lastUpdated":"2026-01-02T03:04:05.678901Z","currentTime":"2026-01-02T03:04:05.678901Z",)"
          R"("nodeEligible":true,"healthy":true,"status":{)"
          R"("IPv4":{"lastUpdated":"2026-01-02T03:03:05.678901Z","healthy":true},)"
          R"("IPv6":{"lastUpdated":"2026-01-02T03:03:05.678901Z","healthy":true}}})");
}

TEST_CASE("rule 39: a node that leaves is not ready, though its proxy is healthy")
{
    const HttpResponse response = health_report({.working = true, .eligible = false, .updated = before, .now = now});
    CHECK(response.status == 503);
    CHECK(response.body.starts_with(R"({"lastUpdated":"2026-01-02T03:03:05.678901Z",)"));
    CHECK(response.body.contains(R"("nodeEligible":false,"healthy":true)"));
}

TEST_CASE("rule 39: before the agent is in sync the node is not ready")
{
    const HttpResponse response = health_report({.eligible = true, .now = now});
    CHECK(response.status == 503);
    CHECK(response.body.starts_with(R"({"lastUpdated":"0001-01-01T00:00:00Z",)"));
    CHECK(response.body.contains(R"("nodeEligible":true,"healthy":false)"));
}

TEST_CASE("rule 39: /livez says nothing of the node")
{
    const HttpResponse response = health_report({.working = true, .updated = before, .now = now});
    CHECK(response.status == 200);
    CHECK_FALSE(response.body.contains("nodeEligible"));
}
