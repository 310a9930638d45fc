// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/backends.h"

#include "tools/thruway/services.h"

namespace thruway::cli {
namespace {

/// What the services say about one backend.
struct Use {
    const JoinedBackend *named = nullptr; ///< as a service that knows the pod behind it names it
    Symbol space;                         ///< of that pod
    std::vector<const JoinedService *> services;
};

std::unordered_map<uint32_t, Use> uses_by_index(const std::vector<JoinedService> &services)
{
    std::unordered_map<uint32_t, Use> uses;
    for (const JoinedService &service : services) {
        if (!service.name)
            continue;
        for (const JoinedBackend &backend : service.backends) {
            Use &use = uses[backend.entry.index];
            use.services.push_back(&service);
            if (backend.endpoint && (!use.named || use.named->pod.empty())) {
                use.named = &backend;
                use.space = service.name->service.space;
            }
        }
    }
    return uses;
}

Row backend_row(const BackendEntry &backend, const Use &use)
{
    Row row{{"address", backend.at.address.text()}, {"port", backend.at.port}};
    if (use.named) {
        if (!use.named->pod.empty())
            row["namespace"] = use.space.text();
        set_text(row, "pod", use.named->pod);
        set_text(row, "node", use.named->endpoint->node.text());
    }
    Row services = Row::array();
    for (const JoinedService *service : use.services)
        services.push_back(port_row(*service->name));
    row["services"] = std::move(services);
    row["index"] = backend.index;
    return row;
}

bool is_used_by(const Use &use, const ObjectName &service)
{
    return std::ranges::any_of(use.services, [&](const JoinedService *s) { return s->name->service == service; });
}

Result<> produce(const Site &site, const std::optional<ObjectName> &only, const Sink &sink)
{
    const Names names = Names::read(site.run_dir);
    if (only)
        if (auto known = names.expect_service(*only); !known)
            return known;
    auto entries = read_services(site);
    if (!entries)
        return std::unexpected(entries.error());
    backend_rows(read_backends(site), join_services(*entries, names), only, sink);
    return {};
}

} // namespace

void backend_rows(std::vector<BackendEntry> backends, const std::vector<JoinedService> &services,
                  const std::optional<ObjectName> &only, const Sink &sink)
{
    std::unordered_map<uint32_t, Use> uses = uses_by_index(services);
    std::ranges::sort(backends, {}, &BackendEntry::at);
    for (const BackendEntry &backend : backends)
        if (const Use &use = uses[backend.index]; !only || is_used_by(use, *only))
            sink(backend_row(backend, use));
}

Listing backend_list(const Site &site, const std::optional<ObjectName> &service)
{
    const auto services = [](const Row &row) {
        std::string text;
        for (const Row &port : row["services"])
            text += (text.empty() ? "" : ",") + port_text(port);
        return text;
    };
    return {.columns = {column("ADDRESS", "/address"),
                        column("PORT", "/port"),
                        column("NAMESPACE", "/namespace"),
                        column("POD", "/pod"),
                        column("NODE", "/node"),
                        {"SERVICES", services},
                        wide(column("INDEX", "/index"))},
            .produce = [&site, service](const Sink &sink) { return produce(site, service, sink); }};
}

} // namespace thruway::cli
