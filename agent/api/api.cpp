// SPDX-License-Identifier: Apache-2.0
#include "agent/api/api.h"

#include "agent/observe/health.h"

#include <chrono>
#include <cmath>
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

Health health_of(const Agent &agent)
{
    return {.working = agent.synced(),
            .updated = agent.updated(),
            .now = std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1)};
}

/// Whether the node may be sent traffic: the maps are what the cluster wants, and the node stays.
HttpResponse ready(Agent &agent)
{
    Health health = health_of(agent);
    const Node *self = agent.nodes().self();
    health.eligible = self && !self->leaving;
    HttpResponse response = health_report(health);
    agent.metrics().probed(Probe::healthz, response.status);
    return response;
}

/// Whether the agent works: its loop has come to answer. One that waits for its source needs no restart.
HttpResponse alive(Agent &agent)
{
    Health health = health_of(agent);
    health.working = true;
    HttpResponse response = health_report(health);
    agent.metrics().probed(Probe::livez, response.status);
    return response;
}

HttpResponse text(std::string body)
{
    return {.body = std::move(body), .headers = {{"X-Content-Type-Options", "nosniff"}}};
}

HttpResponse configz(const Config &config)
{
    return {.type = "application/json",
            .body = json{{"thruway", config_json(config)}}.dump(),
            .headers = {{"X-Content-Type-Options", "nosniff"}}};
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

/// A handler that knows the answer at once.
template<typename Answer>
HttpServer::Handler at_once(Answer answer)
{
    return [answer](const HttpRequest &request, const HttpServer::Reply &reply) { reply(answer(request)); };
}

} // namespace

Result<std::unique_ptr<Api>> Api::start(Loop &loop, Agent &agent)
{
    std::unique_ptr<Api> api(new Api(loop, agent)); // NOLINT(cppcoreguidelines-owning-memory)
    if (auto served = api->serve(); !served)
        return std::unexpected(served.error());
    return api;
}

Api::~Api()
{
    scrapes_.post([this] { scrapes_.stop(); });
    scraper_.join();
}

Result<> Api::serve()
{
    auto socket = HttpServer::on_socket(
        loop_, agent_.config().run_dir + "/agent.sock",
        http_routes(
            {{"GET /status", at_once([this](const HttpRequest &) { return answer(status(agent_)); })},
             {"POST /cni/add", at_once([this](const HttpRequest &request) { return cni_add(agent_, request.body); })},
             {"POST /cni/del",
              at_once([this](const HttpRequest &request) { return cni_del(agent_, request.body); })}}));
    if (!socket)
        return std::unexpected(socket.error());
    socket_ = std::move(*socket);

    const auto ready_now = at_once([this](const HttpRequest &) { return ready(agent_); });
    const auto alive_now = at_once([this](const HttpRequest &) { return alive(agent_); });
    serve_on(agent_.config().metrics_address,
             {{"GET /metrics", [this](const HttpRequest &, const HttpServer::Reply &reply) { scrape(reply); }},
              {"GET /healthz", at_once([](const HttpRequest &) { return text("ok"); })},
              {"GET /proxyMode", at_once([](const HttpRequest &) { return text("thruway"); })},
              {"GET /configz", at_once([this](const HttpRequest &) { return configz(agent_.config()); })}});
    serve_on(agent_.config().health_address, {{"GET /healthz", ready_now}, {"GET /livez", alive_now}});
    return {};
}

void Api::serve_on(const std::string &address, std::map<std::string, HttpServer::Handler> routes)
{
    servers_.push_back(std::make_unique<PatientServer>(loop_, address, http_routes(std::move(routes)),
                                                       [](const Error &error) { spdlog::error("{}", error.text()); }));
}

/// A snapshot is taken in the loop; the slow part, reading the flow table, is done in a thread.
void Api::scrape(const HttpServer::Reply &reply)
{
    scrapes_.post([this, reply, snapshot = agent_.snapshot()] {
        HttpResponse response{.type = "text/plain; version=0.0.4; charset=utf-8",
                              .body = agent_.metrics().text(snapshot, agent_.datapath().maps(), agent_.arrays())};
        loop_.post([reply, response = std::move(response)] { reply(response); });
    });
}

} // namespace thruway
