// SPDX-License-Identifier: Apache-2.0
// Messages and numbers of fields: generated.proto of k8s.io/api and k8s.io/apimachinery, which Kubernetes never
// changes.
#include "agent/kube/protobuf.h"

#include "agent/kube/time.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

namespace thruway {
namespace {

struct Member;
using Message = std::span<const Member>;

enum class Type : uint8_t { text, number, flag, time, texts, map, message, messages };

/// A field that is used.
struct Member {
    uint32_t number;
    std::string_view name; ///< in JSON
    Type type;
    Message message;
};

constexpr std::array object_meta{
    Member{1, "name", Type::text},
    Member{3, "namespace", Type::text},
    Member{6, "resourceVersion", Type::text},
    Member{8, "creationTimestamp", Type::time},
    Member{9, "deletionTimestamp", Type::time},
    Member{11, "labels", Type::map},
    Member{12, "annotations", Type::map},
};
constexpr std::array named{Member{1, "name", Type::text}};

constexpr std::array service_port{
    Member{1, "name", Type::text},
    Member{2, "protocol", Type::text},
    Member{3, "port", Type::number},
    Member{5, "nodePort", Type::number},
};
constexpr std::array client_ip{Member{1, "timeoutSeconds", Type::number}};
constexpr std::array session_affinity{Member{1, "clientIP", Type::message, client_ip}};
constexpr std::array service_spec{
    Member{1, "ports", Type::messages, service_port},
    Member{3, "clusterIP", Type::text},
    Member{4, "type", Type::text},
    Member{5, "externalIPs", Type::texts},
    Member{7, "sessionAffinity", Type::text},
    Member{9, "loadBalancerSourceRanges", Type::texts},
    Member{11, "externalTrafficPolicy", Type::text},
    Member{12, "healthCheckNodePort", Type::number},
    Member{14, "sessionAffinityConfig", Type::message, session_affinity},
    Member{18, "clusterIPs", Type::texts},
    Member{19, "ipFamilies", Type::texts},
    Member{22, "internalTrafficPolicy", Type::text},
};
constexpr std::array ingress{Member{1, "ip", Type::text}, Member{3, "ipMode", Type::text}};
constexpr std::array load_balancer{Member{1, "ingress", Type::messages, ingress}};
constexpr std::array service_status{Member{1, "loadBalancer", Type::message, load_balancer}};
constexpr std::array service{
    Member{1, "metadata", Type::message, object_meta},
    Member{2, "spec", Type::message, service_spec},
    Member{3, "status", Type::message, service_status},
};

constexpr std::array conditions{Member{1, "ready", Type::flag}, Member{2, "serving", Type::flag},
                                Member{3, "terminating", Type::flag}};
constexpr std::array target{Member{1, "kind", Type::text}, Member{3, "name", Type::text}};
constexpr std::array hints{Member{1, "forZones", Type::messages, named}, Member{2, "forNodes", Type::messages, named}};
constexpr std::array endpoint{
    Member{1, "addresses", Type::texts},           Member{2, "conditions", Type::message, conditions},
    Member{4, "targetRef", Type::message, target}, Member{6, "nodeName", Type::text},
    Member{8, "hints", Type::message, hints},
};
constexpr std::array slice_port{Member{1, "name", Type::text}, Member{2, "protocol", Type::text},
                                Member{3, "port", Type::number}};
constexpr std::array endpoint_slice{
    Member{1, "metadata", Type::message, object_meta},
    Member{2, "endpoints", Type::messages, endpoint},
    Member{3, "ports", Type::messages, slice_port},
    Member{4, "addressType", Type::text},
};

constexpr std::array taint{Member{1, "key", Type::text}};
constexpr std::array node_spec{Member{1, "podCIDR", Type::text}, Member{5, "taints", Type::messages, taint},
                               Member{7, "podCIDRs", Type::texts}};
constexpr std::array node_address{Member{1, "type", Type::text}, Member{2, "address", Type::text}};
constexpr std::array node_status{Member{5, "addresses", Type::messages, node_address}};
constexpr std::array node{
    Member{1, "metadata", Type::message, object_meta},
    Member{2, "spec", Type::message, node_spec},
    Member{3, "status", Type::message, node_status},
};

constexpr std::array service_cidr_spec{Member{1, "cidrs", Type::texts}};
constexpr std::array service_cidr{
    Member{1, "metadata", Type::message, object_meta},
    Member{2, "spec", Type::message, service_cidr_spec},
};

constexpr std::array status_details{Member{5, "retryAfterSeconds", Type::number}};
constexpr std::array status{
    Member{3, "message", Type::text},
    Member{4, "reason", Type::text},
    Member{5, "details", Type::message, status_details},
    Member{6, "code", Type::number},
};

constexpr std::string_view status_kind = "Status";

/// The messages of the kinds that are watched.
Message message_of(Kind kind)
{
    switch (kind) {
    case Kind::service:
        return service;
    case Kind::endpoint_slice:
        return endpoint_slice;
    case Kind::node:
        return node;
    case Kind::service_cidr:
        return service_cidr;
    default:
        return {};
    }
}

/// The value of a field, as the encoding has it: a number or bytes.
struct Value {
    uint64_t number = 0;
    std::string_view bytes;
};

/// Calls visit(uint32_t field, Value value) for each field that is there. False if it is no message.
template<typename Visit>
bool each_field(std::string_view message, Visit visit)
{
    using google::protobuf::io::CodedInputStream;
    const auto size = static_cast<int>(message.size()); // of what is shorter than the limit
    CodedInputStream in(reinterpret_cast<const uint8_t *>(message.data()), size);
    while (const uint32_t tag = in.ReadTag()) {
        Value value;
        uint32_t length = 0;
        bool good = false;
        switch (tag & 7U) { // wire types: protobuf's encoding specification
        case 0:
            good = in.ReadVarint64(&value.number);
            break;
        case 1:
            good = in.Skip(8);
            break;
        case 2:
            good = in.ReadVarint32(&length) && length <= message.size();
            value.bytes = message.substr(static_cast<size_t>(in.CurrentPosition()), length);
            good = good && in.Skip(static_cast<int>(length));
            break;
        case 5:
            good = in.Skip(4);
            break;
        default:
            break;
        }
        if (!good)
            return false;
        visit(tag >> 3U, value);
    }
    return in.ConsumedEntireMessage();
}

/// The last value of a field. None if it is not there, or this is no message.
std::optional<Value> find(std::string_view message, uint32_t number)
{
    std::optional<Value> found;
    const bool sound = each_field(message, [&](uint32_t field, const Value &value) {
        if (field == number)
            found = value;
    });
    return sound ? found : std::nullopt;
}

/// Writes a message as JSON. What Go's encoder leaves out, as it is empty, is left out.
class Writer {
public:
    explicit Writer(std::string &out) : out_(out) {}

    /// With its kind, if that is given. False if it is no such message.
    bool write(std::string_view message, Message members, std::string_view kind = {})
    {
        out_ += '{';
        if (!kind.empty()) {
            out_ += R"("kind":)";
            text(kind);
            out_ += ',';
        }
        for (const Member &member : members)
            if (!write_member(message, member))
                return false;
        close('}');
        return true;
    }

    void text(std::string_view text)
    {
        const bool plain =
            std::ranges::none_of(text, [](char c) { return c == '"' || c == '\\' || static_cast<uint8_t>(c) < ' '; });
        if (plain)
            fmt::format_to(std::back_inserter(out_), "\"{}\"", text);
        else
            out_ += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }

private:
    bool write_member(std::string_view message, const Member &member)
    {
        const std::string_view brackets = brackets_of(member.type);
        const size_t before = out_.size();
        text(member.name);
        out_ += ':';
        out_ += brackets.substr(0, 1);
        const size_t begin = out_.size();
        bool good = true;
        const bool sound = each_field(message, [&](uint32_t field, const Value &value) {
            if (field != member.number)
                return;
            if (brackets.empty())
                out_.resize(begin); // of several the last one counts
            good = good && write_value(value, member);
            if (!brackets.empty())
                out_ += ',';
        });
        if (out_.size() == begin) {
            out_.resize(before);
            return sound && good;
        }
        if (!brackets.empty())
            close(brackets.back());
        out_ += ',';
        return sound && good;
    }

    /// What stands around values of which there may be several.
    static std::string_view brackets_of(Type type)
    {
        if (type == Type::texts || type == Type::messages)
            return "[]";
        return type == Type::map ? "{}" : "";
    }

    bool write_value(const Value &value, const Member &member)
    {
        switch (member.type) {
        case Type::text:
            if (!value.bytes.empty())
                text(value.bytes);
            return true;
        case Type::texts:
            text(value.bytes);
            return true;
        case Type::number:
            if (value.number != 0)
                fmt::format_to(std::back_inserter(out_), "{}", static_cast<int64_t>(value.number));
            return true;
        case Type::flag:
            out_ += value.number != 0 ? "true" : "false";
            return true;
        case Type::time:
            if (const auto seconds = find(value.bytes, 1))
                text(time_text(static_cast<int64_t>(seconds->number) * 1'000'000));
            return true;
        case Type::map:
            text(find(value.bytes, 1).value_or(Value()).bytes);
            out_ += ':';
            text(find(value.bytes, 2).value_or(Value()).bytes);
            return true;
        case Type::message:
        case Type::messages:
            return write(value.bytes, member.message);
        }
        return false;
    }

    void close(char bracket)
    {
        if (out_.ends_with(','))
            out_.pop_back();
        out_ += bracket;
    }

    std::string &out_;
};

/// What every object in protobuf begins with (apimachinery pkg/runtime/serializer/protobuf).
constexpr std::string_view magic("k8s\0", 4);

/// An object with what it says of its type around it (runtime.Unknown).
struct Envelope {
    std::string_view kind;
    std::string_view object;
};

std::optional<Envelope> open(std::string_view bytes)
{
    if (!bytes.starts_with(magic))
        return std::nullopt;
    bytes.remove_prefix(magic.size());
    const auto type = find(bytes, 1);
    if (!type)
        return std::nullopt;
    return Envelope{find(type->bytes, 2).value_or(Value()).bytes, find(bytes, 2).value_or(Value()).bytes};
}

Result<std::string> event_json(std::string_view event, Kind kind)
{
    const auto type = find(event, 1);
    const auto wrapped = find(event, 2);
    const auto raw = wrapped ? find(wrapped->bytes, 1) : std::nullopt;
    const auto envelope = raw ? open(raw->bytes) : std::nullopt;
    const auto refuse = [&] { return fail("an event that cannot be read, of {} bytes", event.size()); };
    if (!type || !envelope)
        return refuse();
    std::string json = R"({"type":)";
    Writer writer(json);
    writer.text(type->bytes);
    json += R"(,"object":)";
    const Message members = envelope->kind == status_kind ? Message(status) : message_of(kind);
    if (!writer.write(envelope->object, members, envelope->kind))
        return refuse();
    return json += '}';
}

/// Each event has its length before it (apimachinery pkg/util/framer): 4 bytes, the most significant first.
constexpr size_t head = 4;

size_t length_of(std::string_view frame)
{
    size_t length = 0;
    for (const char c : frame.substr(0, head))
        length = length << 8U | static_cast<uint8_t>(c);
    return length;
}

} // namespace

bool is_protobuf(std::string_view answer)
{
    return answer.starts_with('\0') || answer.starts_with(magic);
}

Result<> ProtobufStream::feed(std::string_view bytes, const Splitter::Take &take)
{
    pending_.append(bytes);
    size_t done = 0;
    for (;;) {
        const std::string_view rest = std::string_view(pending_).substr(done);
        const size_t length = length_of(rest);
        if (rest.size() >= head && length > limit_)
            return fail("an event of more than {} bytes", limit_);
        if (rest.size() < head || rest.size() - head < length)
            break;
        auto json = event_json(rest.substr(head, length), kind_);
        if (!json)
            return std::unexpected(json.error());
        if (auto taken = take(*json); !taken)
            return taken;
        done += head + length;
    }
    pending_.erase(0, done);
    return {};
}

std::string status_from_protobuf(std::string_view body)
{
    const auto envelope = open(body);
    std::string json;
    if (!envelope || envelope->kind != status_kind || !Writer(json).write(envelope->object, status, status_kind))
        return {};
    return json;
}

} // namespace thruway
