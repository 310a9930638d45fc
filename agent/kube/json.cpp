// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/json.h"

#include <fmt/format.h>
#include <iterator>

namespace thruway {

using simdjson::ondemand::json_type;

namespace {

/// As much of the text as a message needs, in whole UTF-8 characters.
std::string shortened(std::string_view text)
{
    size_t size = 80;
    if (text.size() <= size)
        return std::string(text);
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80)
        size--;
    return fmt::format("{}...", text.substr(0, size));
}

} // namespace

std::string quoted(std::string_view text)
{
    std::string out = "\"";
    for (const char c : shortened(text)) {
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7f')
            fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
        else
            out += c;
    }
    out += '"';
    return out;
}

void Faults::refuse(std::string_view field, std::string_view reason)
{
    skip(field, reason);
    refused_ = true;
}

void Faults::skip(std::string_view field, std::string_view reason)
{
    if (!stopped())
        lines_.push_back(field.empty() ? std::string(reason) : fmt::format("{}: {}", field, reason));
}

void Faults::give_up(simdjson::error_code error)
{
    if (broken_ == simdjson::SUCCESS)
        broken_ = error;
}

std::string_view Field::text()
{
    std::string_view text;
    if (is(json_type::string, "a string") && take(value_.get_string().get(text)))
        return text;
    return {};
}

std::optional<bool> Field::flag()
{
    bool flag = false;
    if (is(json_type::boolean, "true or false") && take(value_.get_bool().get(flag)))
        return flag;
    return std::nullopt;
}

std::optional<int64_t> Field::number()
{
    int64_t number = 0;
    if (!is(json_type::number, "a whole number"))
        return std::nullopt;
    if (value_.get_int64().get(number) == simdjson::SUCCESS)
        return number;
    refuse_type("a whole number");
    return std::nullopt;
}

std::string Field::path() const
{
    if (parent_ == nullptr)
        return {};
    const std::string before = parent_->path();
    if (index_ != no_index)
        return fmt::format("{}[{}]", before, index_);
    return before.empty() ? std::string(key_) : fmt::format("{}.{}", before, key_);
}

std::string_view Field::key_of(simdjson::ondemand::field &field)
{
    const char *begin = field.key().raw();
    const char *end = begin;
    while (*end != '"')
        end += *end == '\\' ? 2 : 1;
    return {begin, end};
}

bool Field::is(json_type wanted, std::string_view what)
{
    json_type type = json_type::null;
    if (faults_.stopped() || !take(value_.type().get(type)) || type == json_type::null)
        return false;
    if (type != wanted)
        refuse_type(what);
    return type == wanted;
}

bool Field::open_object()
{
    if (is_open_)
        return !faults_.stopped() && take(object_.reset().error());
    is_open_ = is(json_type::object, "an object") && take(value_.get_object().get(object_));
    return is_open_;
}

bool Field::take(simdjson::error_code error)
{
    if (error != simdjson::SUCCESS)
        faults_.give_up(error);
    return error == simdjson::SUCCESS;
}

void Field::refuse_type(std::string_view what)
{
    std::string_view token = value_.raw_json_token();
    token = token.substr(0, token.find_last_not_of(" \t\r\n") + 1);
    if (token == "{")
        token = "an object";
    else if (token == "[")
        token = "a list";
    refuse(fmt::format("must be {}, is {}", what, shortened(token)));
}

} // namespace thruway
