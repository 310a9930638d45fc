// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/lab/fixture.h"
#include "tools/lab/agents.h"

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// Labs with real agents, and Services for them.
namespace thruway::lab {

/// A lab with agents that goes down with the test.
Lab thruway_lab(Options options = {});

/// A configuration file for agents. It lasts as long as the object, and is to outlive a lab whose agents start again.
class ConfigFile {
public:
    explicit ConfigFile(std::string_view text);
    ~ConfigFile();
    ConfigFile(const ConfigFile &) = delete;
    ConfigFile &operator=(const ConfigFile &) = delete;

    /// How agents are told of it.
    [[nodiscard]] std::vector<std::string> arguments() const { return {"--config", path_}; }

private:
    std::filesystem::path path_;
};

inline constexpr std::array families{Family::ipv4, Family::ipv6};

/// For nodes on which no connection can be older than Thruway: XDP opens flows, and what nobody knows is refused.
constexpr std::string_view nothing_to_adopt = "timeouts: {adopt: 0}\n";

/// A dual-stack Service with ports `tcp` (80) and `udp` (53), which lead to 8080 of its backends, and the same as
/// NodePorts 30080 and 30053.
struct WebService {
    unsigned number = 1;           ///< 10.96.0.NUMBER and fd00:96::NUMBER; node ports are counted up from 30080
    std::vector<std::string> pods; ///< "pod-2-1", as the lab names them
    std::vector<unsigned> nodes;   ///< those whose own processes serve

    [[nodiscard]] std::string name() const { return fmt::format("web-{}", number); }
    [[nodiscard]] std::string cluster(Family family, uint16_t port) const;
    [[nodiscard]] static std::string node_port(unsigned node, Family family, uint16_t port);
    struct Server {
        std::string node;
        std::string address;
        std::string pod; ///< empty: the node itself
    };
    [[nodiscard]] std::vector<Server> servers(const Lab &lab, Family family) const;
    [[nodiscard]] std::string manifest(const Lab &lab) const;
};

/// Shows the service to the agents and waits until all nodes lead to all of its backends and to no other.
void put(const Lab &lab, const WebService &service);

/// The address of a pod, a node, or the client outside, by the name of its place.
std::string address_of(const Lab &lab, const std::string &place, Family family);

/// Runs a command that is to succeed.
void check_runs(const Lab &lab, const std::string &place, const std::vector<std::string> &command);

/// Who answers at the target, when asked from the place by "tcp" or "udp": {"name", "client_address"}.
struct Seen {
    std::string name;
    std::string client;

    friend bool operator==(const Seen &, const Seen &) = default;
};
Seen seen(const Lab &lab, const std::string &place, const std::string &transport, const std::string &target);

/// What `thruway ARGS` says on a node.
Output try_cli(const Lab &lab, const std::string &node, std::vector<std::string> arguments);

/// The same as text, where it must not fail.
std::string cli(const Lab &lab, const std::string &node, std::vector<std::string> arguments);

/// The log of node1's agent has a line that ends like this, once.
void expect_line(const Lab &lab, const std::string &end);

/// Waits until a condition holds, for some seconds at most.
void eventually(const std::string &what, const std::function<bool()> &condition);

} // namespace thruway::lab
