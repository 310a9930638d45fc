// SPDX-License-Identifier: Apache-2.0
#include "agent/base/yaml.h"

#include "agent/base/scalar.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>
#include <yaml.h>

namespace thruway {
namespace {

std::unexpected<Error> fail_at(const yaml_mark_t &mark, std::string_view reason)
{
    return fail("line {}, column {}: {}", mark.line + 1, mark.column + 1, reason);
}

std::string_view text_of(const yaml_char_t *text)
{
    return text == nullptr ? std::string_view() : reinterpret_cast<const char *>(text);
}

/// Where the JSON value that begins at `at` ends, in text without white space.
size_t end_of_value(std::string_view json, size_t at)
{
    size_t depth = 0;
    bool inside_string = false;
    for (;; at++) {
        const char c = json[at];
        if (inside_string) {
            at += c == '\\';
            inside_string = c != '"';
        } else if (c == '"') {
            inside_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth > 0) {
            depth -= c == '}' || c == ']';
        } else if (c == ',' || c == ':' || c == '}' || c == ']') {
            return at;
        }
        if (depth == 0 && at + 1 == json.size())
            return at + 1;
    }
}

/// Calls each(key, value) for the members of an object, in text without white space.
template<typename Each>
void each_member(std::string_view object, Each each)
{
    for (size_t at = 1; at + 1 < object.size();) {
        const size_t colon = end_of_value(object, at);
        const size_t end = end_of_value(object, colon + 1);
        each(object.substr(at, colon - at), object.substr(colon + 1, end - colon - 1));
        at = end + 1;
    }
}

/// The objects that a merge key names: one, or a list of them. Nothing if it is anything else.
std::optional<std::vector<std::string_view>> merged_objects(std::string_view json)
{
    if (json.starts_with('{'))
        return std::vector{json};
    if (!json.starts_with('['))
        return std::nullopt;
    std::vector<std::string_view> objects;
    for (size_t at = 1; at + 1 < json.size();) {
        const size_t end = end_of_value(json, at);
        if (json[at] != '{')
            return std::nullopt;
        objects.push_back(json.substr(at, end - at));
        at = end + 1;
    }
    return objects;
}

/// Writes documents as JSON, in the order in which the parser tells them.
class JsonWriter {
public:
    [[nodiscard]] size_t line() const { return line_; }
    [[nodiscard]] std::string take() { return std::exchange(json_, {}); }

    /// Fails on what JSON cannot hold.
    Result<> add(const yaml_event_t &event)
    {
        const yaml_mark_t &mark = event.start_mark;
        switch (event.type) {
        case YAML_DOCUMENT_START_EVENT:
            line_ = mark.line + 1;
            anchors_.clear();
            copied_ = 0;
            return {};
        case YAML_SCALAR_EVENT:
            return add_scalar(mark, event.data.scalar);
        case YAML_ALIAS_EVENT:
            return add_alias(mark, text_of(event.data.alias.anchor));
        case YAML_MAPPING_START_EVENT:
            return open(mark, text_of(event.data.mapping_start.anchor), '{');
        case YAML_SEQUENCE_START_EVENT:
            return open(mark, text_of(event.data.sequence_start.anchor), '[');
        case YAML_MAPPING_END_EVENT:
            write_merged();
            return close('}');
        case YAML_SEQUENCE_END_EVENT:
            return close(']');
        default:
            return {};
        }
    }

private:
    /// A mapping or sequence that has begun and not ended.
    struct Open {
        yaml_mark_t mark{};
        std::string anchor;
        size_t begin = 0; ///< in the JSON
        bool mapping = false;
        bool has_key = false;                    ///< what comes next is the value of a key
        bool merging = false;                    ///< of a merge key
        std::set<std::string, std::less<>> keys; ///< as JSON
        std::vector<std::string> merges;
    };

    [[nodiscard]] bool at_key() const { return !open_.empty() && open_.back().mapping && !open_.back().has_key; }

    using Scalar = decltype(yaml_event_t::data.scalar);

    Result<> add_scalar(const yaml_mark_t &mark, const Scalar &scalar)
    {
        const std::string_view value(reinterpret_cast<const char *>(scalar.value), scalar.length);
        const bool plain = scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (at_key() && plain && value == "<<") {
            open_.back().has_key = true;
            open_.back().merging = true;
            return {};
        }
        const std::string_view tag = text_of(scalar.tag);
        const auto json = json_scalar(tag.empty() && !plain ? "!" : tag, value);
        if (!json)
            return fail_at(mark, json.error().text());
        return add_json(mark, text_of(scalar.anchor), *json);
    }

    Result<> add_alias(const yaml_mark_t &mark, std::string_view name)
    {
        const auto found = anchors_.find(name);
        if (found == anchors_.end())
            return fail_at(mark, "an alias of something that is not before it");
        if (auto counted = count_copy(mark, found->second.size()); !counted)
            return counted;
        return add_json(mark, "", found->second);
    }

    Result<> add_json(const yaml_mark_t &mark, std::string_view anchor, const std::string &json)
    {
        if (!at_key()) {
            begin_value();
            const size_t begin = json_.size();
            json_ += json;
            return end_value(mark, anchor, begin);
        }
        if (json.starts_with('{') || json.starts_with('[') || json == "null")
            return fail_at(mark, key_reason);
        // A key is text, whatever it looks like.
        const std::string key = json.starts_with('"') ? json : json_string(json);
        Open &mapping = open_.back();
        if (!mapping.keys.insert(key).second)
            return fail_at(mark, "key " + key + " is given twice");
        mapping.has_key = true;
        write_member(key, "");
        return keep(mark, anchor, key);
    }

    void write_member(std::string_view key, std::string_view value)
    {
        if (json_.back() != '{')
            json_ += ',';
        json_ += key;
        json_ += ':';
        json_ += value;
    }

    void begin_value()
    {
        if (!open_.empty() && !open_.back().mapping && json_.back() != '[')
            json_ += ',';
    }

    Result<> end_value(const yaml_mark_t &mark, std::string_view anchor, size_t begin)
    {
        if (auto kept = keep(mark, anchor, std::string_view(json_).substr(begin)); !kept || open_.empty())
            return kept;
        Open &outer = open_.back();
        outer.has_key = false;
        if (std::exchange(outer.merging, false)) {
            // The value of a merge key is written like any other, and then taken away again.
            outer.merges.push_back(json_.substr(begin));
            json_.resize(begin);
            if (!merged_objects(outer.merges.back()))
                return fail_at(mark, "the value of << must be a mapping or a list of mappings");
        }
        return {};
    }

    Result<> open(const yaml_mark_t &mark, std::string_view anchor, char bracket)
    {
        constexpr size_t deepest = 500;
        if (at_key())
            return fail_at(mark, key_reason);
        if (open_.size() == deepest)
            return fail_at(mark, "nested too deeply");
        begin_value();
        Open &opened = open_.emplace_back();
        opened.mark = mark;
        opened.anchor = anchor;
        opened.begin = json_.size();
        opened.mapping = bracket == '{';
        json_ += bracket;
        return {};
    }

    Result<> close(char bracket)
    {
        const Open closed = std::move(open_.back());
        open_.pop_back();
        json_ += bracket;
        return end_value(closed.mark, closed.anchor, closed.begin);
    }

    /// What a mapping says itself comes before what it merges, and there the first one that says it.
    void write_merged()
    {
        Open &mapping = open_.back();
        for (const std::string &merge : mapping.merges) {
            // That it names mappings was checked when it was read.
            const auto objects = merged_objects(merge).value_or(std::vector<std::string_view>());
            for (const std::string_view object : objects) {
                each_member(object, [&](std::string_view key, std::string_view value) {
                    if (mapping.keys.emplace(key).second)
                        write_member(key, value);
                });
            }
        }
    }

    /// Keeps the JSON of an anchored node for its aliases.
    Result<> keep(const yaml_mark_t &mark, std::string_view anchor, std::string_view json)
    {
        if (anchor.empty())
            return {};
        anchors_.insert_or_assign(std::string(anchor), std::string(json));
        return count_copy(mark, json.size());
    }

    /// Aliases of aliases double a document with every line ("billion laughs").
    Result<> count_copy(const yaml_mark_t &mark, size_t size)
    {
        constexpr size_t most = 4 << 20;
        copied_ += size;
        if (copied_ > most)
            return fail_at(mark, "aliases make this document too large");
        return {};
    }

    static constexpr std::string_view key_reason = "a key must be a plain word";

    size_t line_ = 0;
    std::string json_;
    std::vector<Open> open_;
    std::map<std::string, std::string, std::less<>> anchors_;
    size_t copied_ = 0;
};

/// libyaml's parser and the last event that it told.
class EventReader {
public:
    explicit EventReader(std::string_view text) : text_(text)
    {
        yaml_parser_initialize(&parser_);
        yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char *>(text.data()), text.size());
    }
    EventReader(const EventReader &) = delete;
    EventReader &operator=(const EventReader &) = delete;
    ~EventReader()
    {
        yaml_event_delete(&event_);
        yaml_parser_delete(&parser_);
    }

    /// Valid until the next call.
    Result<const yaml_event_t *> next()
    {
        yaml_event_delete(&event_);
        if (yaml_parser_parse(&parser_, &event_) != 0)
            return &event_;
        const char *problem = parser_.problem == nullptr ? "out of memory" : parser_.problem;
        if (parser_.error != YAML_READER_ERROR)
            return fail_at(parser_.problem_mark, problem);
        const std::string_view before = text_.substr(0, parser_.problem_offset);
        return fail("line {}: {}", 1 + std::ranges::count(before, '\n'), problem);
    }

private:
    std::string_view text_;
    yaml_parser_t parser_{};
    yaml_event_t event_{};
};

} // namespace

Result<> yaml_to_json(std::string_view text, const std::function<Result<>(size_t line, std::string json)> &each)
{
    EventReader reader(text);
    JsonWriter writer;
    for (;;) {
        const auto event = reader.next();
        if (!event)
            return std::unexpected(event.error());
        if ((*event)->type == YAML_STREAM_END_EVENT)
            return {};
        if (auto added = writer.add(**event); !added)
            return added;
        if ((*event)->type != YAML_DOCUMENT_END_EVENT)
            continue;
        std::string json = writer.take();
        if (json == "null")
            continue;
        if (auto told = each(writer.line(), std::move(json)); !told)
            return told;
    }
}

} // namespace thruway
