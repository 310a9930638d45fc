// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/control_plane.h"

#include "agent/base/file.h"
#include "agent/datapath/layout.h"
#include "tools/lab/agents.h"

#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <unistd.h>

namespace thruway::bench {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr unsigned changes = 300;
constexpr unsigned restarts = 5;
constexpr const char *node = "node1";

double milliseconds_since(Clock::time_point start)
{
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string service_manifest(unsigned number)
{
    return fmt::format("apiVersion: v1\nkind: Service\nmetadata: {{name: s{0}, namespace: bench}}\nspec:\n"
                       "  clusterIP: 10.{1}.{2}.{3}\n  ports: [{{name: http, port: 80, protocol: TCP}}]\n",
                       number, 100 + number / 65'536, number / 256 % 256, number % 256);
}

/// `round` changes one endpoint.
std::string slice_manifest(unsigned number, unsigned endpoints, unsigned round)
{
    std::string text =
        fmt::format("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{0}\n"
                    "  namespace: bench\n  labels: {{kubernetes.io/service-name: s{0}}}\n"
                    "addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n",
                    number);
    for (unsigned i = 0; i < endpoints; i++) {
        const unsigned pod = number * endpoints + i;
        const unsigned net = i == 0 ? 20 + round % 2 : 10; // the first one moves
        text += fmt::format("- addresses: [{}.{}.{}.{}]\n  nodeName: node-{}\n  conditions: {{ready: true}}\n"
                            "  targetRef: {{kind: Pod, name: s{}-{}, namespace: bench}}\n",
                            net, pod / 65'536, pod / 256 % 256, pod % 256, pod % 500, number, i);
    }
    return text;
}

/// What an agent's process holds in RAM, without the pages of maps that it has mapped: those are the kernel's and are
/// reported by themselves.
Result<double> resident_megabytes(pid_t pid)
{
    std::ifstream smaps(fmt::format("/proc/{}/smaps", pid));
    std::string line;
    bool of_map = false;
    uint64_t kilobytes = 0;
    while (std::getline(smaps, line)) {
        if (line.find('-') != std::string::npos && line.find(':') > line.find(' '))
            of_map = line.find("bpf-map") != std::string::npos;
        else if (line.starts_with("Rss:") && !of_map)
            kilobytes += std::stoull(line.substr(4));
    }
    if (kilobytes == 0)
        return fail("cannot read the memory of process {}", pid);
    return static_cast<double>(kilobytes) / 1024;
}

/// The time that the agent says its last sync took.
Result<double> sync_milliseconds(const lab::Lab &lab)
{
    auto log = read_file(lab.folder().agent_log(node));
    if (!log)
        return std::unexpected(log.error());
    const auto at = log->rfind(" nodes in ");
    if (at == std::string::npos)
        return fail("the agent's log says nothing of a sync");
    return std::stod(log->substr(at + 10));
}

class Cluster {
public:
    static Result<Cluster> start(const ClusterSize &size)
    {
        lab::Options options;
        options.name = fmt::format("bench-{}", getpid());
        options.nodes = 1;
        options.pods = 0;
        options.bin_dir = lab::program_folder();
        auto lab = lab::Lab::up(options);
        if (!lab)
            return std::unexpected(lab.error());
        Cluster cluster(size, std::move(*lab));
        if (auto stopped = lab::stop_agent(cluster.lab_, node); !stopped)
            return std::unexpected(stopped.error());
        for (unsigned i = 0; i < size.services; i++) {
            if (auto put = cluster.lab_.put_manifest(fmt::format("service-{}", i), service_manifest(i)); !put)
                return std::unexpected(put.error());
            if (auto put = cluster.lab_.put_manifest(fmt::format("slice-{}", i), slice_manifest(i, size.endpoints, 0));
                !put)
                return std::unexpected(put.error());
        }
        return cluster;
    }

    /// From the start of the process to everything in the maps; the part after parsing is in `syncs`.
    Result<double> start_agent(std::vector<double> &syncs)
    {
        const auto start = Clock::now();
        if (auto started = lab::start_agent(lab_, node); !started)
            return std::unexpected(started.error());
        if (auto ready = lab::wait_agent_ready(lab_, node, milliseconds(120'000)); !ready)
            return std::unexpected(ready.error());
        const double took = milliseconds_since(start);
        auto sync = sync_milliseconds(lab_);
        if (!sync)
            return std::unexpected(sync.error());
        syncs.push_back(*sync);
        return took;
    }

    Result<> stop_agent() const { return lab::stop_agent(lab_, node); }

    [[nodiscard]] Result<double> memory() const
    {
        auto agent = lab::find_agent(lab_, node);
        if (!agent)
            return std::unexpected(agent.error());
        return resident_megabytes(agent->pid);
    }

    /// Changes slices of services picked at random, one after the other.
    Result<std::vector<double>> change_slices()
    {
        const std::string pins =
            fmt::format("/proc/{}/root{}", lab_.keeper().presence().pid, lab_.folder().bpffs(node).string());
        auto maps = Maps::open(pins);
        if (!maps)
            return std::unexpected(maps.error());
        auto arrays = Arrays::of(*maps, false);
        if (!arrays)
            return std::unexpected(arrays.error());

        std::mt19937 random(1); // the same services in every run
        std::vector<double> samples;
        for (unsigned i = 1; i <= changes; i++) {
            const unsigned number = static_cast<unsigned>(random()) % size_.services;
            const Frontend frontend{address_of(number), 80, Protocol::tcp};
            auto id = maps->frontends.find<tw_frontend, uint32_t>(frontend.raw());
            if (!id)
                return std::unexpected(id.error());
            if (!*id)
                return fail("service s{} is not in the maps", number);
            auto took = change_slice(number, reinterpret_cast<uint64_t &>(arrays->services[service_of(**id)].cluster));
            if (!took)
                return std::unexpected(took.error());
            samples.push_back(*took);
        }
        return samples;
    }

private:
    Cluster(const ClusterSize &size, lab::Lab lab) : size_(size), lab_(std::move(lab)), rounds_(size.services) {}

    static Address address_of(unsigned number)
    {
        return lab::literal_address(
            fmt::format("10.{}.{}.{}", 100 + number / 65'536, number / 256 % 256, number % 256));
    }

    /// From the rename that puts the file into its place to the store that flips the service.
    Result<double> change_slice(unsigned number, uint64_t &word)
    {
        const std::atomic_ref range(word);
        const uint64_t before = range.load();
        const auto path = lab_.folder().manifest(fmt::format("slice-{}", number));
        const auto next = lab_.folder().manifests() / ".next";
        std::ofstream(next) << slice_manifest(number, size_.endpoints, ++rounds_.at(number));
        std::error_code error;
        const auto start = Clock::now();
        std::filesystem::rename(next, path, error);
        if (error)
            return fail_code(error.value(), "cannot write {}", path.string());
        while (range.load(std::memory_order_relaxed) == before)
            if (Clock::now() - start > std::chrono::seconds(5))
                return fail("the change of slice s{} did not arrive", number);
        return milliseconds_since(start);
    }

    ClusterSize size_;
    lab::Lab lab_;
    std::vector<unsigned> rounds_;
};

} // namespace

Result<> measure_control_plane(const ClusterSize &size, Report &report)
{
    const std::string name = fmt::format("{} services, {} endpoints: ", size.services, size.services * size.endpoints);
    const bool large = size.services >= 10'000;
    auto cluster = Cluster::start(size);
    if (!cluster)
        return std::unexpected(cluster.error());
    std::vector<double> syncs;
    auto first = cluster->start_agent(syncs);
    if (!first)
        return std::unexpected(first.error());
    const double first_sync = syncs.back();
    auto memory = cluster->memory();
    if (!memory)
        return std::unexpected(memory.error());
    auto samples = cluster->change_slices();
    if (!samples)
        return std::unexpected(samples.error());

    std::vector<double> starts;
    syncs.clear();
    for (unsigned i = 0; i < restarts; i++) {
        if (auto stopped = cluster->stop_agent(); !stopped)
            return stopped;
        auto took = cluster->start_agent(syncs);
        if (!took)
            return std::unexpected(took.error());
        starts.push_back(*took);
    }
    auto after = cluster->memory();
    if (!after)
        return std::unexpected(after.error());

    report.add({name + "full sync into empty maps, after parsing",
                "ms",
                first_sync,
                {first_sync},
                large ? std::optional(1000.0) : std::nullopt});
    report.add({name + "the same after a restart, nothing changed", "ms", percentile(syncs, 50), syncs, {}});
    report.add({name + "agent start to ready, files read", "ms", percentile(starts, 50), starts, {}});
    report.add_percentiles(name + "one slice, file renamed to map written", "ms", *samples,
                           large ? std::optional(1.0) : std::nullopt, {});
    report.add({name + "agent memory without mapped maps",
                "MB",
                *memory,
                {*memory},
                large ? std::optional(96.0) : std::nullopt});
    report.add({name + "the same after restart", "MB", *after, {*after}, {}});
    return {};
}

} // namespace thruway::bench
