// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/app.h"

#include "tools/thruway/backends.h"
#include "tools/thruway/drops.h"
#include "tools/thruway/endpoints.h"
#include "tools/thruway/flows.h"
#include "tools/thruway/maps.h"
#include "tools/thruway/nodes.h"
#include "tools/thruway/services.h"
#include "tools/thruway/status.h"
#include "tools/thruway/trace.h"

#include <charconv>
#include <CLI/CLI.hpp>

namespace thruway::cli {
namespace {

/// What the command line asks for.
struct Request {
    std::string run_dir = "/run/thruway";
    std::string bpffs = "/sys/fs/bpf/thruway";
    std::string format = "table";
    std::function<Result<Listing>(const Site &)> listing; ///< of the verb that was given
    std::optional<ObjectName> service;
    FlowFilter flows;
    std::optional<std::string> map;
    bool all = false;
    TraceRequest trace;
    bool dropped = false; ///< by a trace: it worked, and the packet did not
};

Format format_of(const std::string &name)
{
    if (name == "wide")
        return Format::wide;
    if (name == "json")
        return Format::json;
    return name == "yaml" ? Format::yaml : Format::table;
}

Result<ObjectName> parse_name(const std::string &text)
{
    const size_t slash = text.find('/');
    if (slash == std::string::npos || slash == 0 || slash + 1 >= text.size() || slash != text.rfind('/'))
        return fail("\"{}\" is not NAMESPACE/NAME", text);
    return ObjectName{Symbol(text.substr(0, slash)), text.substr(slash + 1)};
}

template<typename Number>
Result<Number> parse_number(const std::string &text, Number least, const char *what)
{
    Number number = 0;
    const char *end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || at != end || number < least)
        return fail("\"{}\" is not {}", text, what);
    return number;
}

Result<uint16_t> parse_port(const std::string &text)
{
    return parse_number<uint16_t>(text, 1, "a port (1 to 65535)");
}

Result<uint64_t> parse_limit(const std::string &text)
{
    return parse_number<uint64_t>(text, 1, "a number of 1 or more");
}

Result<std::string> parse_protocol(const std::string &text)
{
    if (text == "tcp" || text == "udp" || text == "icmp" || text == "sctp")
        return text;
    return fail("\"{}\" is not tcp, udp, icmp or sctp", text);
}

Result<std::string> parse_map(const std::string &text)
{
    if (std::ranges::find(Maps::members, text, &Maps::Member::name) != Maps::members.end())
        return text;
    std::vector<std::string_view> names;
    for (const Maps::Member &member : Maps::members)
        names.push_back(member.name);
    return fail("there is no map \"{}\"; there are {}", text, fmt::join(names, ", "));
}

/// An argument that `parse` must understand.
template<typename Value, typename Parse>
CLI::Option *add_parsed(CLI::App &app, const std::string &name, std::optional<Value> &to, Parse parse,
                        const std::string &help, const std::string &form)
{
    const auto take = [&to, parse, name](const std::string &text) {
        Result<Value> parsed = parse(text);
        if (!parsed)
            throw CLI::ValidationError(name, parsed.error().text());
        to = std::move(*parsed);
    };
    return app.add_option_function<std::string>(name, take, help)->option_text(form);
}

/// A command that ends in a listing.
template<typename Make>
CLI::App &add_verb(CLI::App &parent, Request &request, const std::string &name, const std::string &help,
                   const std::string &examples, Make make)
{
    CLI::App &verb = *parent.add_subcommand(name, help);
    verb.add_option("-o,--output", request.format, "What to print")
        ->check(CLI::IsMember({"table", "wide", "json", "yaml"}))
        ->option_text("table|wide|json|yaml [table]");
    verb.footer("Examples:\n" + examples);
    verb.callback([&request, make] { request.listing = make; });
    return verb;
}

CLI::App &add_noun(CLI::App &app, const std::string &name, const std::string &help)
{
    CLI::App &noun = *app.add_subcommand(name, help);
    noun.require_subcommand(1);
    noun.footer(fmt::format("Example:\n  thruway {} list", name));
    return noun;
}

void add_service(CLI::App &app, Request &request)
{
    CLI::App &noun = add_noun(app, "service", "Services: their frontends, and the backends that serve them");
    add_verb(noun, request, "list", "Every port of every Service",
             "  thruway service list\n  thruway service list -o json | jq '.[] | select(.backends == [])'",
             [](const Site &site) { return service_list(site); });
    CLI::App &get = add_verb(noun, request, "get", "The ports of one Service, with what they have carried",
                             "  thruway service get default/web",
                             [&request](const Site &site) { return service_get(site, *request.service); });
    add_parsed(get, "service", request.service, parse_name, "Which one", "NAMESPACE/NAME")->required();
}

void add_backend(CLI::App &app, Request &request)
{
    CLI::App &noun = add_noun(app, "backend", "Backends: addresses and ports that serve");
    CLI::App &list = add_verb(noun, request, "list", "Every backend in use, with its pod and the services that use it",
                              "  thruway backend list\n  thruway backend list --service default/web -o wide",
                              [&request](const Site &site) { return backend_list(site, request.service); });
    add_parsed(list, "--service", request.service, parse_name, "Only those of this Service", "NAMESPACE/NAME");
}

void add_flow(CLI::App &app, Request &request)
{
    CLI::App &noun = add_noun(app, "flow", "Flows: connections and exchanges that the datapath remembers");
    CLI::App &list = add_verb(noun, request, "list", "Flows that match all of the options",
                              "  thruway flow list --service default/web\n"
                              "  thruway flow list --address 10.244.1.2 --port 8080 --protocol tcp -o json",
                              [&request](const Site &site) { return flow_list(site, request.flows); });
    FlowFilter &filter = request.flows;
    add_parsed(list, "--address", filter.address, Address::parse, "Of either end, before or after translation",
               "ADDRESS");
    add_parsed(list, "--port", filter.port, parse_port, "Likewise; of ICMP the echo identifier", "PORT");
    add_parsed(list, "--protocol", filter.protocol, parse_protocol, "icmp means ICMPv6, too", "tcp|udp|icmp|sctp");
    add_parsed(list, "--service", filter.service, parse_name, "Made through this Service", "NAMESPACE/NAME");
    add_parsed(list, "--limit", filter.limit, parse_limit, "At most so many", "N");
}

void add_map(CLI::App &app, Request &request)
{
    CLI::App &noun = add_noun(app, "map", "BPF maps: how full they are, and what they hold");
    add_verb(noun, request, "list", "Every map with its size and memory", "  thruway map list",
             [](const Site &site) { return map_list(site); });
    CLI::App &dump = add_verb(noun, request, "dump", "What a map holds, field by field, in a fixed order",
                              "  thruway map dump frontends\n  thruway map dump services --all -o json",
                              [&request](const Site &site) { return map_dump(site, *request.map, request.all); });
    add_parsed(dump, "map", request.map, parse_map, "Which one, by its name in map list", "NAME")->required();
    dump.add_flag("--all", request.all, "All rows of an array, not only those in use");
}

/// A port of the source or of an address is a number. TCP and the like need one, and an address brings none along.
void check_trace(const TraceRequest &trace)
{
    if (trace.source.port && !trace.source.number())
        throw CLI::ValidationError("SRC", fmt::format("\"{}\" is not a port (1 to 65535)", *trace.source.port));
    if (!trace.destination.address)
        return;
    if (trace.destination.port && !trace.destination.number())
        throw CLI::ValidationError("DST", fmt::format("\"{}\" is not a port (1 to 65535)", *trace.destination.port));
    if (!trace.destination.port && trace.protocol && *trace.protocol != "icmp")
        throw CLI::ValidationError("DST",
                                   fmt::format("{} needs a port: {}:PORT", *trace.protocol, trace.destination.text()));
}

void add_trace(CLI::App &app, Request &request)
{
    CLI::App &verb =
        add_verb(app, request, "trace",
                 "What would become of a packet, step by step. Nothing is written and nothing sent. Exits with 1 if it "
                 "is dropped",
                 "  thruway trace default/client default/web\n"
                 "  thruway trace 10.244.1.2:40000 10.96.0.10:80\n"
                 "  thruway trace client kube-system/dns:dns --proto udp -o json\n"
                 "  thruway trace host default/web          (what processes of the host get at their sockets, too)\n"
                 "  thruway trace 198.51.100.7 172.20.0.11:30080 --via eth1",
                 [&request](const Site &site) { return trace(site, request.trace, request.dropped); });
    const auto add_end = [&verb](const char *name, TraceEnd &to, const char *help, const char *form) {
        const auto take = [&to, name](const std::string &text) {
            auto parsed = parse_trace_end(text);
            if (!parsed)
                throw CLI::ValidationError(name, parsed.error().text());
            to = std::move(*parsed);
        };
        verb.add_option_function<std::string>(name, take, help)->option_text(form)->required();
    };
    add_end("SRC", request.trace.source,
            "Who sends: a pod, host, or any address. With the port of a connection that stands, that one is followed; "
            "else the packet opens one",
            "[NAMESPACE/]POD|ADDRESS|host[:PORT]");
    add_end("DST", request.trace.destination, "To whom: a Service, a pod or any address",
            "[NAMESPACE/]NAME|ADDRESS[:PORT]");
    add_parsed(verb, "--proto", request.trace.protocol, parse_protocol, "Of the packet",
               "tcp|udp|sctp|icmp [the Service's; else tcp with a port, icmp without]");
    verb.add_option("--via", request.trace.uplink, "Uplink by which a packet from outside comes in")
        ->option_text("IF [the first]");
    verb.parse_complete_callback([&request] { check_trace(request.trace); });
}

void declare(CLI::App &app, Request &request)
{
    app.set_version_flag("--version", "thruway " THRUWAY_VERSION);
    app.require_subcommand(1);
    app.fallthrough(); // the two options below may stand behind the verb, too
    app.add_option("--run-dir", request.run_dir, "Folder where the agent saves names")
        ->option_text(fmt::format("DIR [{}]", request.run_dir));
    app.add_option("--bpffs", request.bpffs, "Folder where the agent pins maps")
        ->option_text(fmt::format("DIR [{}]", request.bpffs));
    app.footer("Examples:\n  thruway status\n  thruway service list -o json\n  thruway flow list --help");

    add_verb(app, request, "status", "What runs on this node, how full it is, and what needs attention",
             "  thruway status\n  thruway status -o json | jq .attention",
             [](const Site &site) { return status_report(site); });
    add_service(app, request);
    add_backend(app, request);
    add_verb(add_noun(app, "endpoint", "Endpoints: the interfaces of this node's pods"), request, "list",
             "Every pod of this node that the datapath serves", "  thruway endpoint list -o wide",
             [](const Site &site) { return endpoint_list(site); });
    add_verb(add_noun(app, "node", "Nodes: the ways to the pods of each"), request, "list",
             "Every node with its pod CIDRs and next hops", "  thruway node list",
             [](const Site &site) { return node_list(site); });
    add_flow(app, request);
    add_map(app, request);
    add_trace(app, request);
    add_verb(app, request, "drops", "Packets that were dropped, by reason and direction",
             "  thruway drops\n  thruway drops -o json", [](const Site &site) { return drop_list(site); });
}

/// The noun or verb that the words of the command line lead to.
const CLI::App &reached(const CLI::App &app)
{
    const std::vector<CLI::App *> given = app.get_subcommands();
    return given.empty() ? app : reached(*given.back());
}

/// What is wrong with the command line. For a word that should be a noun or a verb the library has no word of its own.
std::string fault(const CLI::App &app, const CLI::ParseError &error)
{
    const CLI::App &at = reached(app);
    std::vector<std::string> next;
    for (const CLI::App *word : at.get_subcommands([](const CLI::App *) { return true; }))
        next.push_back(word->get_name());
    if (next.empty() || error.get_exit_code() != static_cast<int>(CLI::ExitCodes::RequiredError))
        return error.what();
    return fmt::format("{} needs one of {}", at.get_name(), fmt::join(next, ", "));
}

Result<> show(const Request &request, std::ostream &out)
{
    auto site = Site::open(request.run_dir, request.bpffs);
    if (!site)
        return std::unexpected(site.error());
    auto listing = request.listing(*site);
    if (!listing)
        return std::unexpected(listing.error());
    if (auto printed = print(*listing, format_of(request.format), out); !printed)
        return printed;
    if (!out.flush())
        return fail("cannot write the output");
    return {};
}

} // namespace

int run(int argc, const char *const *argv, std::ostream &out, std::ostream &err)
{
    CLI::App app("Shows what Thruway's datapath on this node holds and does, whether its agent runs or not.",
                 "thruway");
    Request request;
    declare(app, request);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success &done) {
        return app.exit(done, out, err);
    } catch (const CLI::ParseError &error) {
        err << fmt::format("thruway: {} (see --help)\n", fault(app, error));
        return wrong_usage;
    }
    if (auto shown = show(request, out); !shown) {
        err << fmt::format("thruway: {}\n", shown.error().text());
        return failed;
    }
    return request.dropped ? failed : good;
}

} // namespace thruway::cli
