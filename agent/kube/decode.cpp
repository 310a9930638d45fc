// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/decode.h"

#include "agent/kube/endpoint_slice.h"
#include "agent/kube/json.h"
#include "agent/kube/metadata.h"
#include "agent/kube/node.h"
#include "agent/kube/pod.h"
#include "agent/kube/service.h"
#include "agent/kube/service_cidr.h"

#include <algorithm>
#include <fmt/format.h>
#include <string_view>
#include <utility>
#include <variant>

namespace thruway {
namespace {

/// What an object says of its own type.
struct TypeMeta {
    std::string_view version;
    std::string_view kind;

    friend bool operator==(const TypeMeta &, const TypeMeta &) = default;
};

/// What must be known of an object before the rest of it can be read.
struct Head {
    TypeMeta type;
    Metadata metadata;
};

Head read_head(Field &root)
{
    Head head;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "apiVersion")
            head.type.version = value.text();
        else if (key == "kind")
            head.type.kind = value.text();
        else if (key == "metadata")
            head.metadata = read_metadata(value);
    });
    return head;
}

/// The type of objects of this kind.
TypeMeta type_of(Kind kind)
{
    switch (kind) {
    case Kind::endpoint_slice:
        return {"discovery.k8s.io/v1", kind_name(kind)};
    case Kind::service_cidr:
        return {"networking.k8s.io/v1", kind_name(kind)};
    default:
        return {"v1", kind_name(kind)};
    }
}

std::optional<Kind> find_kind(const TypeMeta &type)
{
    for (const Kind kind :
         {Kind::service, Kind::endpoint_slice, Kind::node, Kind::pod, Kind::name_space, Kind::service_cidr})
        if (type == type_of(kind))
            return kind;
    return std::nullopt;
}

/// The type of the items of a list: of `ServiceList`, Service; of `List`, none in particular. Nothing if the type is
/// not that of a list.
std::optional<TypeMeta> item_type(const TypeMeta &type)
{
    constexpr std::string_view suffix = "List";
    if (type.kind == suffix && type.version == "v1")
        return TypeMeta();
    if (!type.kind.ends_with(suffix))
        return std::nullopt;
    const TypeMeta item{type.version, type.kind.substr(0, type.kind.size() - suffix.size())};
    return find_kind(item) ? std::optional(item) : std::nullopt;
}

/// Nothing if the object is not wanted, or refused.
std::optional<Object> read_object(Kind kind, Field &root, const Metadata &metadata)
{
    switch (kind) {
    case Kind::service:
        return read_service(root, metadata);
    case Kind::endpoint_slice:
        return read_endpoint_slice(root, metadata);
    case Kind::node:
        return read_node(root, metadata);
    case Kind::pod:
        return read_pod(root);
    case Kind::name_space:
        return Namespace();
    case Kind::service_cidr:
        return read_service_cidr(root);
    }
    return std::nullopt;
}

Decoded decode_object(Kind kind, Field &root, const Metadata &metadata)
{
    Decoded decoded;
    auto name = name_of(kind, metadata, root.faults());
    if (!name)
        return decoded;
    decoded.object = read_object(kind, root, metadata);
    if (root.faults().stopped())
        decoded.object.reset();
    else if (decoded.object)
        std::visit([&](auto &object) { object.name = *name; }, *decoded.object);
    decoded.key = ObjectKey{kind, std::move(*name)};
    return decoded;
}

/// Reads the objects of one document.
class DocumentReader {
public:
    /// `line` is where the document begins.
    DocumentReader(size_t line, std::vector<Decoded> &objects) : line_(line), objects_(objects) {}

    /// `place` is where the object stands in the document, `implied` its type if what is around it has said that.
    Metadata read(const Field &place, const TypeMeta &implied)
    {
        Faults faults;
        Field root(place.value(), faults);
        const Head head = read_head(root);
        const TypeMeta &type = implied.kind.empty() ? head.type : implied;

        Decoded decoded;
        if (const auto kind = find_kind(type))
            decoded = decode_object(*kind, root, head.metadata);
        else if (const auto item = item_type(type))
            read_items(root, *item);
        else
            refuse_type(type, decoded, faults);
        add(std::move(decoded), type, faults, place);
        if (faults.broken() != simdjson::SUCCESS)
            place.faults().give_up(faults.broken());
        return head.metadata;
    }

private:
    void read_items(Field &list, const TypeMeta &type)
    {
        list.each_field([&](std::string_view key, Field value) {
            if (key == "items")
                value.each_item([&](const Field &item, size_t) { read(item, type); });
        });
    }

    /// Of a kind that is not used, the line is the same for all its objects, so that it need be told only once.
    static void refuse_type(const TypeMeta &type, Decoded &decoded, Faults &faults)
    {
        if (type.kind.empty())
            faults.refuse("kind", "missing");
        else if (type.version.empty())
            faults.refuse("apiVersion", "missing");
        else
            decoded.faults = {fmt::format("kind {} of {} is not used", quoted(type.kind), quoted(type.version))};
    }

    void add(Decoded decoded, const TypeMeta &type, const Faults &faults, const Field &place)
    {
        for (const std::string &line : faults.lines())
            decoded.faults.push_back(fmt::format("{}: {}", label(decoded, type, place), line));
        if (decoded.key || !decoded.faults.empty())
            objects_.push_back(std::move(decoded));
    }

    /// What a message calls the object: "Service default/web" or, without a name, "Service in line 12, items[7]".
    [[nodiscard]] std::string label(const Decoded &decoded, const TypeMeta &type, const Field &place) const
    {
        if (decoded.key)
            return decoded.key->text();
        const std::string path = place.path();
        return fmt::format("{} in line {}{}{}", find_kind(type) ? type.kind : "object", line_, path.empty() ? "" : ", ",
                           path);
    }

    size_t line_;
    std::vector<Decoded> &objects_;
};

/// The document that begins `text`: up to the brace that closes its first one. Nothing if the text ends before that.
std::optional<std::string_view> first_document(std::string_view text)
{
    size_t depth = 0;
    bool inside_string = false;
    for (size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (inside_string) {
            i += c == '\\';
            inside_string = c != '"';
        } else if (c == '"') {
            inside_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return text.substr(0, i + 1);
        }
    }
    return std::nullopt;
}

WatchEvent::Type event_type(std::string_view text)
{
    if (text == "ADDED" || text == "MODIFIED")
        return WatchEvent::Type::upsert;
    if (text == "DELETED")
        return WatchEvent::Type::remove;
    return text == "BOOKMARK" ? WatchEvent::Type::bookmark : WatchEvent::Type::error;
}

/// That a version is too new is told by the message, whatever the code (apimachinery pkg/api/errors,
/// IsTooLargeResourceVersion).
ApiStatus read_status(Field &root)
{
    ApiStatus status;
    std::string_view kind;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "kind")
            kind = value.text();
        else if (key == "code")
            status.code = value.number().value_or(0);
        else if (key == "reason")
            status.reason = value.text();
        else if (key == "message")
            status.message = value.text();
        else if (key == "details")
            value.each_field([&](std::string_view name, Field detail) {
                if (name == "retryAfterSeconds")
                    status.retry_after = detail.number().value_or(0);
            });
    });
    if (kind != "Status")
        return {};
    status.too_new = status.message.contains("Too large resource version");
    return status;
}

} // namespace

struct Decoder::Memory {
    simdjson::ondemand::parser parser;

    /// Calls read(Field root) on one document, which stands in a buffer that goes on for `capacity` bytes from its
    /// begin.
    template<typename Read>
    simdjson::error_code read(std::string_view text, size_t capacity, Read read)
    {
        simdjson::ondemand::document document;
        Field::Value value;
        Faults faults;
        if (auto error = parser.iterate(text.data(), text.size(), capacity).get(document))
            return error;
        if (auto error = document.get_value().get(value))
            return error;
        read(Field(value, faults));
        return faults.broken();
    }

    /// The same on a whole string. simdjson reads some way past the end of what it is given.
    template<typename Read>
    Result<> read(std::string &json, Read read_root)
    {
        json.reserve(json.size() + simdjson::SIMDJSON_PADDING);
        if (auto error = read(std::string_view(json), json.capacity(), read_root))
            return fail("{}: {}", simdjson::error_message(error), thruway::quoted(json));
        return {};
    }
};

Decoder::Decoder() : memory_(std::make_unique<Memory>())
{
}
Decoder::~Decoder() = default;

Result<std::vector<Decoded>> Decoder::decode(std::string json, size_t line)
{
    json.reserve(json.size() + simdjson::SIMDJSON_PADDING);
    std::vector<Decoded> objects;
    size_t done = 0;
    for (;;) {
        const size_t begin = std::min(json.find_first_not_of(" \t\r\n", done), json.size());
        line += static_cast<size_t>(std::count(json.data() + done, json.data() + begin, '\n'));
        if (begin == json.size())
            return objects;
        if (json[begin] != '{')
            return fail("line {}: must be an object", line);
        const auto text = first_document(std::string_view(json).substr(begin));
        if (!text)
            return fail("ends within the object that begins in line {}", line);
        const auto read = [&](const Field &root) { DocumentReader(line, objects).read(root, {}); };
        if (auto error = memory_->read(*text, json.capacity() - begin, read))
            return fail("object that begins in line {}: {}", line, simdjson::error_message(error));
        line += static_cast<size_t>(std::ranges::count(*text, '\n'));
        done = begin + text->size();
    }
}

Result<Decoded> Decoder::decode_item(Kind kind, std::string &json)
{
    std::vector<Decoded> objects;
    auto read = memory_->read(json, [&](const Field &root) { DocumentReader(1, objects).read(root, type_of(kind)); });
    if (!read)
        return std::unexpected(read.error());
    return objects.empty() ? Decoded() : std::move(objects.front());
}

Result<WatchEvent> Decoder::decode_event(Kind kind, std::string &json)
{
    WatchEvent event;
    std::vector<Decoded> objects;
    auto read = memory_->read(json, [&](Field root) {
        root.each_field([&](std::string_view key, Field value) {
            if (key == "type")
                event.type = event_type(value.text());
        });
        root.each_field([&](std::string_view key, Field value) {
            if (key != "object")
                return;
            if (event.type == WatchEvent::Type::error) {
                event.status = read_status(value);
                return;
            }
            Metadata metadata;
            if (event.type == WatchEvent::Type::bookmark)
                metadata = read_head(value).metadata;
            else
                metadata = DocumentReader(1, objects).read(value, type_of(kind));
            event.version = metadata.version;
            event.initial_end = metadata.initial_end;
        });
    });
    if (!read)
        return std::unexpected(read.error());
    if (!objects.empty())
        event.decoded = std::move(objects.front());
    return event;
}

Result<ListHead> Decoder::decode_list_head(std::string &json)
{
    ListHead head;
    bool has_items = false;
    auto read = memory_->read(json, [&](Field root) {
        root.each_field([&](std::string_view key, Field value) {
            has_items |= key == "items";
            if (key == "metadata")
                value.each_field([&](std::string_view name, Field field) {
                    if (name == "resourceVersion")
                        head.version = field.text();
                    else if (name == "continue")
                        head.next = field.text();
                });
        });
    });
    if (!read)
        return std::unexpected(read.error());
    if (!has_items || head.version.empty())
        return fail("is no list of an API server: {}", thruway::quoted(json));
    return head;
}

ApiStatus Decoder::decode_status(std::string json)
{
    ApiStatus status;
    if (auto read = memory_->read(json, [&](Field root) { status = read_status(root); }); !read)
        return {};
    return status;
}

} // namespace thruway
