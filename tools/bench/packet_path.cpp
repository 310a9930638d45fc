// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/packet_path.h"

#include "tools/bench/packet_node.h"

#include "packet_path.skel.h" // after the layouts that it names
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctime>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <random>
#include <span>

namespace thruway::bench {
namespace {

constexpr uint32_t usual_rows = 1U << 18; ///< of the flow table, as it is if nobody configures it
constexpr uint32_t rows = 1U << 22;       ///< of one for very many flows: 256 MB of IPv4 rows
constexpr uint32_t list_size = 1U << 21;
constexpr unsigned rounds = 9;
constexpr uint32_t repeats = 250'000;  ///< of a run over established flows, at least
constexpr uint32_t newcomers = 20'000; ///< new flows in a run: too few to change how full the table is
constexpr uint32_t in_cache = 512;     ///< new flows whose rows stay in the CPU's cache from one round to the next
constexpr uint32_t few = 128 * 1024;   ///< flows that are in use, where the table holds many more

constexpr uint8_t syn = 0x02;
constexpr uint8_t ack = 0x10;
constexpr int verdict_next = -1;
constexpr int verdict_redirect = 7;

using Packets = std::vector<tw_bench_packet>;

double cpu_nanoseconds()
{
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

/// A TCP frame of the smallest size on the wire. The driver fills in what tells flows apart.
std::array<uint8_t, 64> frame()
{
    std::array<uint8_t, 64> bytes{};
    ethhdr ethernet{};
    iphdr ip{};
    tcphdr tcp{};
    ethernet.h_proto = htons(ETH_P_IP);
    ip.version = 4;
    ip.ihl = 5;
    ip.tot_len = htons(bytes.size() - sizeof(ethernet));
    ip.ttl = 64;
    ip.protocol = IPPROTO_TCP;
    tcp.doff = 5;
    std::memcpy(bytes.data(), &ethernet, sizeof(ethernet));
    std::memcpy(bytes.data() + sizeof(ethernet), &ip, sizeof(ip));
    std::memcpy(bytes.data() + sizeof(ethernet) + sizeof(ip), &tcp, sizeof(tcp));
    return bytes;
}

/// What is measured: a program, the interface that its packets come in by, and what it makes of each.
struct Target {
    int program = -1;
    unsigned ifindex = 1; ///< loopback, for what does not look at it
    int verdict = verdict_next;
    bool xdp = false;
};

/// The driver and its list of packets.
class Driver {
public:
    static Result<std::unique_ptr<Driver>> load(PacketNode &node);

    /// Nanoseconds a packet over all packets of the list, again and again for so many packets.
    Result<double> run(const Target &target, uint32_t packets, uint8_t tcp_flags);

    /// The same above what an empty program takes: samples of interleaved rounds. `prepare` comes before each round.
    Result<std::vector<double>> measure(const Target &target, uint32_t packets, uint8_t tcp_flags,
                                        const std::function<void()> &prepare = {});

    void list(const Packets &packets)
    {
        count_ = static_cast<uint32_t>(packets.size());
        for (uint32_t i = 0; i < count_; i++)
            list_[i] = packets[i];
    }

    /// Puts the same keys into the kernel's own maps.
    Result<> fill_hashes(const Packets &keys) const;

    [[nodiscard]] Target target(const bpf_program *program) const { return {.program = bpf_program__fd(program)}; }
    [[nodiscard]] const packet_path &skeleton() const { return *skeleton_; }

private:
    struct Closer {
        void operator()(packet_path *skeleton) const { packet_path__destroy(skeleton); }
    };

    std::unique_ptr<packet_path, Closer> skeleton_;
    MappedArray<tw_bench_packet> list_;
    uint32_t count_ = 0;
};

/// The constants that a program was loaded with.
Result<tw_config> constants_of(int program)
{
    std::array<uint32_t, 64> ids{};
    bpf_prog_info info{};
    info.nr_map_ids = ids.size();
    info.map_ids = reinterpret_cast<uint64_t>(ids.data());
    uint32_t length = sizeof(info);
    if (bpf_prog_get_info_by_fd(program, &info, &length) != 0)
        return fail_errno("cannot learn a program's maps");
    for (uint32_t i = 0; i < std::min<size_t>(info.nr_map_ids, ids.size()); i++) {
        const Fd map(bpf_map_get_fd_by_id(ids.at(i)));
        bpf_map_info about{};
        length = sizeof(about);
        if (!map || bpf_map_get_info_by_fd(map.get(), &about, &length) != 0 ||
            std::string(about.name) != ".rodata.config")
            continue;
        std::vector<char> value(about.value_size); // the linker keeps the copy of each program file; the first is used
        const uint32_t key = 0;
        tw_config config{};
        if (value.size() < sizeof(config) || bpf_map_lookup_elem(map.get(), &key, value.data()) != 0)
            break;
        std::memcpy(&config, value.data(), sizeof(config));
        return config;
    }
    return fail("a program has no constants");
}

/// Gives a skeleton the maps and constants of the loaded programs, so that it sees the same flow table.
Result<> share(const PacketNode &node, packet_path &skeleton)
{
    for (const Maps::Member &member : Maps::members)
        if (bpf_map *map = bpf_object__find_map_by_name(skeleton.obj, std::string(member.name).c_str()))
            if (bpf_map__reuse_fd(map, (node.maps().*member.map).fd()) != 0)
                return fail_errno("cannot share map {}", member.name);
    auto program = node.program("from_pod");
    if (!program)
        return std::unexpected(program.error());
    auto config = constants_of(program->get());
    if (!config)
        return std::unexpected(config.error());
    std::memcpy(const_cast<tw_config *>(&skeleton.rodata_config->config), &*config, sizeof(*config));
    return {};
}

Result<std::unique_ptr<Driver>> Driver::load(PacketNode &node)
{
    auto driver = std::make_unique<Driver>();
    driver->skeleton_.reset(packet_path__open());
    if (!driver->skeleton_)
        return fail_errno("cannot open the driver");
    packet_path &skeleton = *driver->skeleton_;
    if (auto shared = share(node, skeleton); !shared)
        return std::unexpected(shared.error());
    for (bpf_map *map : {skeleton.maps.list, skeleton.maps.hash, skeleton.maps.lru})
        bpf_map__set_max_entries(map, list_size);
    libbpf_complaint().clear();
    if (packet_path__load(&skeleton) != 0)
        return fail_errno("cannot load the driver ({})", libbpf_complaint());
    auto map = Map::adopt(Fd(::dup(bpf_map__fd(skeleton.maps.list))), "list");
    if (!map)
        return std::unexpected(map.error());
    auto list = MappedArray<tw_bench_packet>::of(*map, true);
    if (!list)
        return std::unexpected(list.error());
    driver->list_ = std::move(*list);
    return driver;
}

Result<double> Driver::run(const Target &target, uint32_t packets, uint8_t tcp_flags)
{
    const uint32_t key = 0;
    const bpf_map *called = target.xdp ? skeleton_->maps.xdp_target : skeleton_->maps.target;
    if (bpf_map_update_elem(bpf_map__fd(called), &key, &target.program, BPF_ANY) != 0)
        return fail_errno("cannot call the program");
    skeleton_->bss->walk = {0, count_, tcp_flags, 0};
    auto bytes = frame();
    __sk_buff context{};
    context.ifindex = target.ifindex;
    xdp_md xdp_context{};
    xdp_context.data_end = bytes.size();
    xdp_context.ingress_ifindex = target.ifindex;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = bytes.data();
    options.data_size_in = bytes.size();
    options.ctx_in = target.xdp ? static_cast<void *>(&xdp_context) : &context;
    options.ctx_size_in = target.xdp ? sizeof(xdp_context) : sizeof(context);
    options.repeat = static_cast<int>(packets);
    const double start = cpu_nanoseconds();
    const bpf_program *drive = target.xdp ? skeleton_->progs.drive_xdp : skeleton_->progs.drive;
    if (bpf_prog_test_run_opts(bpf_program__fd(drive), &options) != 0)
        return fail_errno("test run");
    const double took = cpu_nanoseconds() - start;
    if (static_cast<int>(options.retval) != target.verdict)
        return fail("the program did not do its work: it returned {}, not {}", static_cast<int>(options.retval),
                    target.verdict);
    return took / packets;
}

Result<std::vector<double>> Driver::measure(const Target &target, uint32_t packets, uint8_t tcp_flags,
                                            const std::function<void()> &prepare)
{
    Target empty = this->target(skeleton_->progs.empty);
    if (target.xdp)
        empty = {bpf_program__fd(skeleton_->progs.empty_xdp), target.ifindex, XDP_PASS, true};
    std::vector<double> samples;
    for (unsigned round = 0; round < rounds; round++) {
        if (prepare)
            prepare();
        auto floor = run(empty, packets, tcp_flags);
        auto took = run(target, packets, tcp_flags);
        for (const auto &result : {floor, took})
            if (!result)
                return std::unexpected(result.error());
        samples.push_back(*took - *floor);
    }
    return samples;
}

Result<> Driver::fill_hashes(const Packets &keys) const
{
    const std::vector<uint64_t> values(keys.size());
    for (const bpf_map *map : {skeleton_->maps.hash, skeleton_->maps.lru}) {
        auto count = static_cast<uint32_t>(keys.size());
        if (bpf_map_update_batch(bpf_map__fd(map), keys.data(), values.data(), &count, nullptr) != 0)
            return fail_errno("cannot fill {}", bpf_map__name(map));
    }
    return {};
}

/// One kind of traffic: what clients send first, and by which programs both directions pass.
struct Traffic {
    std::string name;
    tw_bench_packet (*packet)(uint32_t);
    Target forth;
    Target back;
};

/// Opens flows of one kind of traffic and measures them.
class Measurement {
public:
    Measurement(PacketNode &node, Driver &driver, Traffic traffic, Report &report)
        : node_(node), driver_(driver), traffic_(std::move(traffic)), report_(report)
    {
    }

    /// Opens and establishes flows until there are `flows`.
    Result<> open(uint32_t flows);

    /// Packets of flows that stand, `flows` of them in random order, and their answers.
    Result<> established(uint32_t flows, const std::string &when);

    /// Lookups alone, in our table and in the kernel's.
    Result<> lookups(uint32_t flows, const std::string &when);

    /// First packets of so many flows that are not there yet; they are taken out again.
    Result<> fresh(uint32_t flows, const std::string &when, std::optional<double> goal);

    /// Ends all flows.
    void clear();

private:
    Packets keys(tw_flow_state state, bool reply);
    Packets some(uint32_t flows, bool reply);
    Result<> pass(const Target &target, const Packets &packets, uint8_t tcp_flags);
    Result<> measure(const std::string &name, const Target &target, uint32_t packets, uint8_t tcp_flags,
                     std::optional<double> goal, const std::function<void()> &prepare = {});
    void forget(tw_flow_state state);

    PacketNode &node_;
    Driver &driver_;
    Traffic traffic_;
    Report &report_;
    uint32_t dialled_ = 0; ///< clients so far
    std::mt19937 random_{1};
};

Packets Measurement::keys(tw_flow_state state, bool reply)
{
    Packets found;
    const auto &buckets = node_.arrays().flows4;
    for (uint32_t i = 0; i < buckets.size(); i++)
        for (const tw_flow4 &row : buckets[i].row)
            if ((row.head.word & TW_FLOW_STATE) == static_cast<uint32_t>(state) &&
                static_cast<bool>(row.head.flags & TW_FLOW_REPLY) == reply)
                found.push_back({row.source, row.destination, row.head.source_port, row.head.destination_port, 0});
    return found;
}

Packets Measurement::some(uint32_t flows, bool reply)
{
    Packets all = keys(TW_FLOW_ESTABLISHED, reply);
    std::ranges::shuffle(all, random_);
    all.resize(std::min<size_t>(all.size(), flows));
    return all;
}

Result<> Measurement::pass(const Target &target, const Packets &packets, uint8_t tcp_flags)
{
    if (packets.empty())
        return fail("{}: no flow got so far", traffic_.name);
    driver_.list(packets);
    auto took = driver_.run(target, static_cast<uint32_t>(packets.size()), tcp_flags);
    return took ? Result<>{} : std::unexpected(took.error());
}

Result<> Measurement::open(uint32_t flows)
{
    const uint32_t step = node_.rows() / 16; // half-open flows would give way to each other, if they were many
    auto stand = static_cast<uint32_t>(keys(TW_FLOW_ESTABLISHED, false).size());
    while (stand < flows) {
        Packets packets;
        for (uint32_t i = 0; i < std::min(step, flows - stand); i++)
            packets.push_back(traffic_.packet(dialled_++));
        for (const auto &passed :
             {pass(traffic_.forth, packets, syn), pass(traffic_.back, keys(TW_FLOW_HALF_OPEN, true), syn | ack),
              pass(traffic_.forth, keys(TW_FLOW_ANSWERED, false), ack)})
            if (!passed)
                return passed;
        const auto now = static_cast<uint32_t>(keys(TW_FLOW_ESTABLISHED, false).size());
        if (now == stand)
            return fail("{}: the table takes no more than {} flows", traffic_.name, now);
        stand = now;
    }
    return {};
}

Result<> Measurement::measure(const std::string &name, const Target &target, uint32_t packets, uint8_t tcp_flags,
                              std::optional<double> goal, const std::function<void()> &prepare)
{
    auto samples = driver_.measure(target, packets, tcp_flags, prepare);
    if (!samples)
        return std::unexpected(samples.error());
    report_.add({name, "ns", percentile(*samples, 50), *samples, goal});
    return {};
}

Result<> Measurement::established(uint32_t flows, const std::string &when)
{
    const std::optional<double> goal = flows == 1     ? std::optional(50.0)
                                       : flows == few ? std::optional(100.0)
                                                      : std::nullopt;
    for (const bool reply : {false, true}) {
        driver_.list(some(flows, reply));
        if (auto measured = measure(fmt::format("{}, {}, {}", traffic_.name, reply ? "reply" : "established", when),
                                    reply ? traffic_.back : traffic_.forth, std::max(flows, repeats), ack, goal);
            !measured)
            return measured;
    }
    return {};
}

Result<> Measurement::lookups(uint32_t flows, const std::string &when)
{
    if (auto filled = driver_.fill_hashes(keys(TW_FLOW_ESTABLISHED, false)); !filled)
        return filled;
    driver_.list(some(flows, false));
    const auto &programs = driver_.skeleton().progs;
    for (const auto &[name, program] : {std::pair("one cache line of the flow table", programs.touch_row),
                                        {"flow table", programs.find_flow},
                                        {"kernel HASH", programs.find_hash},
                                        {"kernel LRU_HASH", programs.find_lru}})
        if (auto measured = measure(fmt::format("lookup alone, {}, {}", name, when), driver_.target(program),
                                    std::max(flows, repeats), ack, {});
            !measured)
            return measured;
    return {};
}

Result<> Measurement::fresh(uint32_t flows, const std::string &when, std::optional<double> goal)
{
    Packets packets;
    for (uint32_t i = 0; i < flows; i++)
        packets.push_back(traffic_.packet(dialled_ + i));
    driver_.list(packets);
    auto measured = measure(fmt::format("{}, new flow, {}", traffic_.name, when), traffic_.forth, flows, syn, goal,
                            [this] { forget(TW_FLOW_HALF_OPEN); });
    forget(TW_FLOW_HALF_OPEN);
    return measured;
}

void Measurement::forget(tw_flow_state state)
{
    auto &buckets = node_.arrays().flows4;
    for (uint32_t i = 0; i < buckets.size(); i++)
        for (tw_flow4 &row : buckets[i].row)
            if ((row.head.word & TW_FLOW_STATE) == static_cast<uint32_t>(state))
                row.head.word &= ~TW_FLOW_STATE;
}

void Measurement::clear()
{
    for (const tw_flow_state state : {TW_FLOW_HALF_OPEN, TW_FLOW_ANSWERED, TW_FLOW_ESTABLISHED})
        forget(state);
}

struct Level {
    uint32_t flows;
    std::string_view name;
    bool by_fill; ///< 128k of these flows are in use
};

/// In a table of the usual size.
constexpr std::array usual_levels{
    Level{1, "1 flow", false},
    Level{16 * 1024, "16k flows", false},
};

/// In a large one.
constexpr std::array large_levels{
    Level{few, "128k flows", false},
    Level{rows / 8, "128k flows of a table that is 25 % full", true},
    Level{rows / 4, "1M flows", false},
    Level{rows / 4, "128k flows of a table that is 50 % full", true},
    Level{rows / 8 * 3, "128k flows of a table that is 75 % full", true},
};

Result<> measure_level(Measurement &measurement, const Level &level, bool lookups)
{
    const uint32_t used = level.by_fill ? few : level.flows;
    const std::string when(level.name);
    const std::optional<double> goal = level.flows <= few ? std::optional(300.0) : std::nullopt;
    if (auto opened = measurement.open(level.flows); !opened)
        return opened;
    if (auto measured = measurement.established(used, when); !measured)
        return measured;
    if (lookups)
        if (auto measured = measurement.lookups(used, when); !measured)
            return measured;
    return measurement.fresh(level.flows == 1 ? in_cache : newcomers, when, goal);
}

/// What becomes dearer, or should not, for the first packet of a flow by what its Service has. Of many flows: where few
/// would have their rows in the cache, those to many endpoints would not, as each is to another one in each round.
Result<> measure_services(PacketNode &node, Driver &driver, const Target &pod, const Target &net, Report &report)
{
    for (const Traffic &traffic : {Traffic{"1 endpoint", PacketNode::to_cluster_ip, pod, net},
                                   {"5,000 endpoints", PacketNode::to_many_endpoints, pod, net},
                                   {"session affinity", PacketNode::to_affinity, pod, net},
                                   {"1 source range", PacketNode::to_one_range, net, net},
                                   {"1,000 source ranges", PacketNode::to_many_ranges, net, net}})
        if (auto measured = Measurement(node, driver, traffic, report).fresh(newcomers, "by Service", {}); !measured)
            return measured;
    return {};
}

/// ClusterIPs have lookups alone and levels of fill measured, too: those are the flow table's, whichever the traffic
/// is.
Result<> measure_node(uint32_t table, std::span<const Level> levels, Report &report)
{
    auto node = PacketNode::up(table);
    if (!node)
        return std::unexpected(node.error());
    auto driver = Driver::load(**node);
    auto from_pod = (*node)->program("from_pod");
    auto from_net = (*node)->program("from_net");
    auto xdp_net = (*node)->program("xdp_net");
    if (!driver)
        return std::unexpected(driver.error());
    for (const auto &program : {&from_pod, &from_net, &xdp_net})
        if (!*program)
            return std::unexpected(program->error());
    const Target pod{from_pod->get(), (*node)->pod(), verdict_redirect};
    const Target net{from_net->get(), (*node)->uplink(), verdict_redirect};
    const Target xdp{xdp_net->get(), (*node)->uplink(), XDP_TX, true};
    for (const Traffic &traffic : {Traffic{"pod to ClusterIP", PacketNode::to_cluster_ip, pod, net},
                                   {"pod to pod", PacketNode::to_pod, pod, net},
                                   {"NodePort by tc", PacketNode::to_node_port, net, net},
                                   {"NodePort by XDP", PacketNode::to_node_port, xdp, xdp}}) {
        const bool cluster_ip = traffic.packet == PacketNode::to_cluster_ip;
        Measurement measurement(**node, **driver, traffic, report);
        for (const Level &level : levels)
            if (cluster_ip || !level.by_fill)
                if (auto measured = measure_level(measurement, level, cluster_ip); !measured)
                    return measured;
        measurement.clear();
    }
    return table == usual_rows ? measure_services(**node, **driver, pod, net, report) : Result<>{};
}

} // namespace

Result<> measure_packet_path(Report &report)
{
    if (auto measured = measure_node(usual_rows, usual_levels, report); !measured)
        return measured;
    return measure_node(rows, large_levels, report);
}

} // namespace thruway::bench
