// SPDX-License-Identifier: Apache-2.0
// Which endpoints new connections may go to: kube-proxy's rules, by cases (shared numbers are those of
// pkg/proxy/topology.go).
#include "agent/planner/choice.h"

#include <catch2/catch_test_macros.hpp>

using namespace thruway;

namespace {

constexpr uint8_t ready = Endpoint::ready | Endpoint::serving;
constexpr uint8_t unready = 0;
constexpr uint8_t lingering = Endpoint::serving | Endpoint::terminating;
constexpr uint8_t dying = Endpoint::terminating;

struct Told {
    std::string address;
    uint8_t conditions = ready;
    std::string node = "other";
    std::vector<std::string> nodes;
    std::vector<std::string> zones;
};

std::vector<Symbol> symbols(const std::vector<std::string> &texts)
{
    std::vector<Symbol> all;
    for (const std::string &text : texts)
        all.emplace_back(text);
    return all;
}

EndpointSlice slice(const std::string &name, const std::vector<Told> &endpoints, uint16_t port = 80)
{
    EndpointSlice made;
    made.name = {Symbol("default"), name};
    made.ports = {{Symbol("http"), Protocol::tcp, port}};
    for (const Told &told : endpoints) {
        made.endpoints.push_back({.address = Address::parse(told.address).value(),
                                  .node = Symbol(told.node),
                                  .conditions = told.conditions,
                                  .hints = made.add_hints({symbols(told.nodes), symbols(told.zones)})});
        made.family = made.endpoints.back().address.family();
    }
    return made;
}

std::vector<std::string> texts(const std::vector<Backend> &backends)
{
    std::vector<std::string> all;
    for (const Backend &backend : backends)
        all.push_back(backend.address.text());
    return all;
}

Choice choose(const std::vector<EndpointSlice> &slices, Family family = Family::ipv4)
{
    std::vector<const EndpointSlice *> all;
    for (const EndpointSlice &slice : slices)
        all.push_back(&slice);
    return choose_endpoints(all, {{Symbol("default"), "web"}, Symbol("http"), Protocol::tcp, family},
                            {.node = Symbol("here"), .zone = Symbol("east"), .addresses = {}});
}

using Texts = std::vector<std::string>;

} // namespace

TEST_CASE("rule 16: new connections go to ready endpoints, and to lingering ones only if none is ready")
{
    const Choice some = choose({slice("a", {{"10.0.0.1"}, {"10.0.0.2", unready}, {"10.0.0.3", lingering}})});
    CHECK(texts(some.cluster) == Texts{"10.0.0.1"});
    const Choice none = choose({slice("a", {{"10.0.0.2", unready}, {"10.0.0.3", lingering}, {"10.0.0.4", dying}})});
    CHECK(texts(none.cluster) == Texts{"10.0.0.3"});
    CHECK(choose({slice("a", {{"10.0.0.2", unready}, {"10.0.0.4", dying}})}).cluster.empty());
}

TEST_CASE("rule 17: Local takes this node's ready endpoints, and its lingering ones only if none of them is ready")
{
    const Choice some =
        choose({slice("a", {{"10.0.0.1"}, {"10.0.0.2", ready, "here"}, {"10.0.0.3", lingering, "here"}})});
    CHECK(texts(some.local) == Texts{"10.0.0.2"});
    const Choice lingers = choose({slice("a", {{"10.0.0.1"}, {"10.0.0.3", lingering, "here"}})});
    CHECK(texts(lingers.local) == Texts{"10.0.0.3"});
    CHECK(texts(lingers.cluster) == Texts{"10.0.0.1"});
}

TEST_CASE("rule 19: endpoints elsewhere are endpoints, though Local has none")
{
    const Choice choice = choose({slice("a", {{"10.0.0.1"}})});
    CHECK(choice.local.empty());
    CHECK(texts(choice.cluster) == Texts{"10.0.0.1"});
}

TEST_CASE("rule 18: hints for nodes go before hints for zones, and neither counts for Local")
{
    const Choice node = choose({slice(
        "a", {{"10.0.0.1", ready, "here", {"there"}, {"east"}}, {"10.0.0.2", ready, "other", {"here"}, {"west"}}})});
    CHECK(texts(node.cluster) == Texts{"10.0.0.2"});
    CHECK(texts(node.local) == Texts{"10.0.0.1"});
    const Choice zone = choose(
        {slice("a", {{"10.0.0.1", ready, "o", {"there"}, {"east"}}, {"10.0.0.2", ready, "o", {"there"}, {"west"}}})});
    CHECK(texts(zone.cluster) == Texts{"10.0.0.1"});
}

TEST_CASE("rule 18: hints count only if each ready endpoint has them and one of them names this place")
{
    CHECK(texts(choose({slice("a", {{"10.0.0.1", ready, "o", {}, {"east"}}, {"10.0.0.2"}})}).cluster) ==
          Texts{"10.0.0.1", "10.0.0.2"});
    CHECK(texts(choose({slice("a", {{"10.0.0.1", ready, "o", {}, {"west"}}})}).cluster) == Texts{"10.0.0.1"});
    // What is not ready need not have any.
    CHECK(texts(choose({slice("a", {{"10.0.0.1", ready, "o", {}, {"east"}},
                                    {"10.0.0.2", ready, "o", {}, {"west"}},
                                    {"10.0.0.3", lingering}})})
                    .cluster) == Texts{"10.0.0.1"});
    // Lingering ones are taken wherever they are.
    CHECK(texts(choose({slice("a", {{"10.0.0.1", lingering, "o", {}, {"west"}}})}).cluster) == Texts{"10.0.0.1"});
}

TEST_CASE("rule 21: slices of the other family count for nothing")
{
    const std::vector<EndpointSlice> both{slice("a", {{"10.0.0.1"}}), slice("b", {{"fd00::1"}})};
    CHECK(texts(choose(both, Family::ipv4).cluster) == Texts{"10.0.0.1"});
    CHECK(texts(choose(both, Family::ipv6).cluster) == Texts{"fd00::1"});
}

TEST_CASE("rule 23: an endpoint of several slices is one, and who does not terminate decides, in any order")
{
    const EndpointSlice living = slice("b", {{"10.0.0.1"}});
    const EndpointSlice leaving = slice("a", {{"10.0.0.1", lingering}, {"10.0.0.2"}});
    for (const auto &slices : {std::vector{living, leaving}, std::vector{leaving, living}})
        CHECK(texts(choose(slices).cluster) == Texts{"10.0.0.1", "10.0.0.2"});
    // Another port makes another endpoint.
    const Choice ports = choose({slice("a", {{"10.0.0.1"}}, 80), slice("b", {{"10.0.0.1"}}, 81)});
    CHECK(ports.cluster.size() == 2);
}

TEST_CASE("rule 35: what serves keeps its flows, whatever policy, hints and termination say")
{
    const Choice choice = choose({slice("a", {{"10.0.0.1", ready, "here", {"here"}},
                                              {"10.0.0.2", ready, "o", {"there"}},
                                              {"10.0.0.3", lingering},
                                              {"10.0.0.4", dying},
                                              {"10.0.0.5", unready}})});
    CHECK(texts(choice.cluster) == Texts{"10.0.0.1"});
    CHECK(texts(choice.serving) == Texts{"10.0.0.1", "10.0.0.2", "10.0.0.3"});
}

TEST_CASE("rule 38: load balancers are told of this node's ready endpoints, each once, in the family that has more")
{
    const auto count = [](std::vector<EndpointSlice> slices) {
        Service web{.name = {Symbol("default"), "web"}};
        web.cluster_ips = {Address::parse("10.96.0.1").value(), Address::parse("fd00:96::1").value()};
        web.ports = {{Symbol("http"), Protocol::tcp, 80, 30080}, {Symbol("https"), Protocol::tcp, 443, 30443}};
        std::vector<const EndpointSlice *> all;
        for (EndpointSlice &slice : slices) {
            slice.ports.push_back({Symbol("https"), Protocol::tcp, 8443});
            all.push_back(&slice);
        }
        return count_ready_here(all, web, {.node = Symbol("here"), .zone = {}, .addresses = {}});
    };
    CHECK(count({}) == 0);
    CHECK(count({slice("a", {{"10.0.0.1", ready, "here"}, {"10.0.0.2", ready, "here"}, {"10.0.0.3"}})}) == 2);
    CHECK(count({slice("a", {{"10.0.0.1", ready, "here"}, {"10.0.0.2", unready, "here"}})}) == 1);
    CHECK(count({slice("a", {{"10.0.0.1", lingering, "here"}})}) == 0);
    CHECK(count({slice("a", {{"10.0.0.1", ready, "here"}}), slice("b", {{"10.0.0.1", ready, "here"}})}) == 1);
    CHECK(count({slice("a", {{"10.0.0.1", ready, "here"}}), slice("b", {{"10.0.0.1", lingering, "here"}})}) == 1);
    CHECK(count({slice("a", {{"10.0.0.1", ready, "here"}}),
                 slice("b", {{"fd00::1", ready, "here"}, {"fd00::2", ready, "here"}})}) == 2);
}
