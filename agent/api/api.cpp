// SPDX-License-Identifier: Apache-2.0
#include "agent/api/api.h"

#include <chrono>
#include <cmath>
#include <ctime>
#include <future>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace thruway {
namespace {

using nlohmann::json;

HttpResponse answer(const json &body, int status = 200)
{
    return {status, "application/json", body.dump(2, ' ', false, json::error_handler_t::replace) + "\n"};
}

HttpResponse failure(int status, const std::string &text)
{
    return answer({{"error", text}}, status);
}

/// Has the loop work out an answer. A loop that is ending takes no more work.
HttpResponse in_loop(Loop &loop, std::function<HttpResponse()> task)
{
    auto promise = std::make_shared<std::promise<HttpResponse>>();
    std::future<HttpResponse> result = promise->get_future();
    loop.post([promise, work = std::move(task)] { promise->set_value(work()); });
    while (result.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready)
        if (loop.stopped())
            return failure(503, "the agent is ending");
    return result.get();
}

std::string utc_now()
{
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                       parts.tm_hour, parts.tm_min, parts.tm_sec);
}

/// As kube-proxy's, whose keys load balancers and tests look for (pkg/proxy/healthcheck).
HttpResponse health(bool healthy)
{
    const std::string now = utc_now();
    return answer({{"lastUpdated", now}, {"currentTime", now}, {"healthy", healthy}}, healthy ? 200 : 503);
}

/// Whether the node may be sent traffic: the maps are what the cluster wants.
HttpResponse ready(const Agent &agent)
{
    return health(agent.synced());
}

/// Whether the agent works: its loop has come to answer. One that waits for its source needs no restart.
HttpResponse alive(const Agent & /*agent*/)
{
    return health(true);
}

json uplink_xdp(const HostNetwork &host)
{
    json list = json::array();
    for (const auto &[name, state] : host.uplink_xdp()) {
        list.push_back({{"interface", name}, {"mode", xdp_mode_name(state.mode)}});
        if (!state.reason.empty())
            list.back()["reason"] = state.reason;
    }
    return list;
}

/// Absent is absent.
json watch_row(const WatchStatus &watch)
{
    json row{{"resource", watch.resource},
             {"state", watch.state},
             {"objects", watch.objects},
             {"bytes", watch.bytes},
             {"reconnects", watch.reconnects}};
    const std::pair<const char *, const std::string *> texts[] = {{"server", &watch.server},
                                                                  {"resource_version", &watch.version},
                                                                  {"trouble", &watch.trouble},
                                                                  {"last_error", &watch.last_error}};
    for (const auto &[key, text] : texts)
        if (!text->empty())
            row[key] = *text;
    const std::pair<const char *, std::optional<double>> ages[] = {
        {"last_error_age_seconds", watch.last_error_age},
        {"resource_version_age_seconds", watch.version_age},
        {"last_event_age_seconds", watch.event_age},
    };
    for (const auto &[key, age] : ages)
        if (age)
            row[key] = std::round(*age * 10) / 10;
    return row;
}

json watch_rows(const Source &source)
{
    json rows = json::array();
    for (const WatchStatus &watch : source.watches())
        rows.push_back(watch_row(watch));
    return rows;
}

json status(const Agent &agent)
{
    const ServiceTables::Fill fill = agent.service_tables().fill();
    return {{"version", THRUWAY_VERSION},
            {"pid", getpid()},
            {"node", agent.config().node},
            {"source", agent.config().source},
            {"synced", agent.synced()},
            {"watches", watch_rows(agent.source())},
            {"uplinks", agent.host().uplink_names()},
            {"xdp", uplink_xdp(agent.host())},
            {"sock", sock_mode_name(agent.config().sock)},
            {"objects",
             {{"services", agent.services().service_count()},
              {"endpoint_slices", agent.services().slice_count()},
              {"nodes", agent.nodes().all().size()}}},
            {"maps",
             {{"services", fill.services},
              {"frontends", fill.frontends},
              {"backends", fill.backends},
              {"slots", fill.slots}}}};
}

Result<PodRequest> pod_request(const std::string &body)
{
    try {
        const json value = json::parse(body);
        PodRequest request;
        value.at("container_id").get_to(request.container);
        value.at("interface").get_to(request.interface);
        request.pod = {Symbol(value.at("pod_namespace").get<std::string>()), value.at("pod_name").get<std::string>()};
        value.at("device").get_to(request.device);
        auto mac = parse_mac(value.at("mac").get<std::string>());
        if (!mac)
            return std::unexpected(mac.error());
        request.mac = *mac;
        return request;
    } catch (const json::exception &error) {
        return fail("{}", error.what());
    }
}

HttpResponse cni_add(Agent &agent, const std::string &body)
{
    auto request = pod_request(body);
    if (!request)
        return failure(400, request.error().text());
    if (!agent.synced())
        return failure(503, "the agent does not know the cluster yet");
    const auto start = std::chrono::steady_clock::now();
    auto pod = agent.pods().add(*request);
    if (!pod) {
        spdlog::error("{}", pod.error().text());
        return failure(500, pod.error().text());
    }
    json addresses = json::array();
    for (const Address &address : pod->addresses)
        addresses.push_back(address.text());
    const auto took = std::chrono::steady_clock::now() - start;
    spdlog::info("pod {}: {} by {} in {} us", pod->pod.text(), addresses.dump(), pod->device,
                 std::chrono::duration_cast<std::chrono::microseconds>(took).count());
    return answer({{"addresses", addresses}, {"mtu", agent.host().mtu()}, {"gateway_mac", mac_text(pod->host_mac)}});
}

HttpResponse cni_del(Agent &agent, const std::string &body)
{
    const json value = json::parse(body, nullptr, false);
    if (!value.is_object() || !value.contains("container_id") || !value.contains("interface"))
        return failure(400, "container_id and interface are needed");
    auto removed = agent.pods().remove(value["container_id"], value["interface"]);
    return removed ? answer(json::object()) : failure(500, removed.error().text());
}

/// A snapshot is taken in the loop; the slow part, reading the flow table, is not.
HttpResponse metrics(Loop &loop, const Agent &agent)
{
    auto snapshot = std::make_shared<MetricsSnapshot>();
    HttpResponse taken = in_loop(loop, [snapshot, &agent] {
        *snapshot = agent.snapshot();
        return HttpResponse{};
    });
    if (taken.status != 200)
        return taken;
    return {200, "text/plain; version=0.0.4; charset=utf-8",
            agent.metrics().text(*snapshot, agent.datapath().maps(), agent.arrays())};
}

} // namespace

Result<Api> Api::start(Loop &loop, Agent &agent)
{
    const auto with_agent = [&loop, &agent](auto handler) {
        return [&loop, &agent, handler](const std::string &body) {
            return in_loop(loop, [&agent, handler, body] { return handler(agent, body); });
        };
    };
    const auto ready_now = with_agent([](Agent &a, const std::string &) { return ready(a); });
    const auto alive_now = with_agent([](Agent &a, const std::string &) { return alive(a); });
    const auto mode = [](const std::string &) { return HttpResponse{.body = "thruway"}; };

    Api api;
    auto socket = HttpServer::on_socket(
        agent.config().run_dir + "/agent.sock",
        {{"GET /status", with_agent([](Agent &a, const std::string &) { return answer(status(a)); })},
         {"POST /cni/add", with_agent(cni_add)},
         {"POST /cni/del", with_agent(cni_del)}});
    if (!socket)
        return std::unexpected(socket.error());
    api.servers_.push_back(std::move(*socket));

    const std::pair<std::string, HttpServer::Handlers> on_tcp[] = {
        {agent.config().metrics_address,
         {{"GET /metrics", [&loop, &agent](const std::string &) { return metrics(loop, agent); }},
          {"GET /healthz", ready_now},
          {"GET /proxyMode", mode}}},
        {agent.config().health_address, {{"GET /healthz", ready_now}, {"GET /livez", alive_now}}},
    };
    for (const auto &[address, handlers] : on_tcp) {
        if (auto server = HttpServer::on_address(address, handlers))
            api.servers_.push_back(std::move(*server));
        else
            spdlog::error("{}", server.error().text());
    }
    return api;
}

} // namespace thruway
