// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"
#include "agent/planner/plan.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace thruway {

/// What the agent's loop knows at the moment of a scrape. The rest is read from the maps.
struct MetricsSnapshot {
    struct Fill {
        std::string map;
        uint64_t entries;
    };
    struct Objects {
        std::string kind;
        size_t count;
    };

    bool synced = false;
    std::vector<Fill> fill;
    std::vector<Objects> objects;
    std::vector<std::pair<ServiceKey, uint32_t>> services; ///< with their ids
    std::shared_ptr<const FlowArrays> previous;            ///< while the flow table changes its size or layout
};

/// Who asks how it stands with the agent.
enum class Probe : uint8_t { healthz, livez };

/// Metrics as Prometheus scrapes them. Names that kube-proxy has too mean what they mean there (pkg/proxy/metrics in
/// the Kubernetes tree), so that dashboards go on working.
class Metrics {
public:
    Metrics();
    Metrics(const Metrics &) = delete;
    Metrics &operator=(const Metrics &) = delete;
    ~Metrics();

    /// Objects of these kinds have changed, and are to be brought into the maps.
    void queued(size_t services, size_t slices);

    /// All that was queued is in the maps.
    void synced(std::chrono::nanoseconds took);

    /// An EndpointSlice's change, triggered at this time (ms since 1970), is in the maps.
    void programmed(Family family, int64_t triggered);

    /// A node port has come that a process of the node has a socket at.
    void node_port_taken();

    /// A probe was answered with this HTTP status.
    void probed(Probe probe, int status);

    /// A slice of the flow table has been walked.
    void walked(std::chrono::nanoseconds took);

    /// An object was refused, or did not fit.
    void refused();

    /// The exposition text. May be called in any thread; reads the flow table, so it takes some milliseconds.
    [[nodiscard]] std::string text(const MetricsSnapshot &snapshot, const Maps &maps, const Arrays &arrays) const;

private:
    struct Instruments;
    std::unique_ptr<Instruments> instruments_;
};

} // namespace thruway
