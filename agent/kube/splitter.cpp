// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/splitter.h"

#include "agent/kube/json.h"

#include <algorithm>

namespace thruway {
namespace {

bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/// The first byte from `at` on that means something to the splitter.
size_t next_mark(std::string_view bytes, size_t at, bool inside_string)
{
    const auto means_something = [&](char c) {
        return c == '"' || (inside_string ? c == '\\' : c == '{' || c == '}' || c == '[' || c == ']');
    };
    while (at < bytes.size() && !means_something(bytes[at]))
        at++;
    return at;
}

} // namespace

/// Objects of a stream stand at depth 0, those of a list in the list "items" of the object at depth 0.
bool Splitter::between_objects() const
{
    return !inside_object_ && !inside_string_ && (shape_ == Shape::stream ? depth_ == 0 : inside_items_ || depth_ == 0);
}

bool Splitter::is_complete() const
{
    return depth_ == 0 && (shape_ == Shape::stream || !frame_.empty());
}

Result<> Splitter::feed(std::string_view bytes, const Take &take)
{
    size_t at = 0;
    while (at < bytes.size()) {
        if (between_objects()) {
            const char c = bytes[at];
            if (is_space(c) || (c == ',' && inside_items_)) {
                at++;
                continue;
            }
            if (c != '{' && (c != ']' || !inside_items_))
                return fail("is not JSON of an API server: {}", thruway::quoted(bytes.substr(at)));
            inside_object_ = c == '{' && (shape_ == Shape::stream || inside_items_);
        }
        const size_t begin = at;
        if (std::exchange(escaped_, false))
            at++;
        at = next_mark(bytes, at, inside_string_);
        const bool marked = at < bytes.size();
        at += marked;
        target().append(bytes.substr(begin, at - begin));
        if (target().size() > limit_)
            return fail("an object is longer than {} bytes", limit_);
        if (!marked)
            continue;
        if (auto taken = structural(bytes[at - 1]); !taken)
            return taken;
        if (inside_object_ && depth_ == (shape_ == Shape::stream ? 0 : 2))
            if (auto finished = finish(take); !finished)
                return finished;
    }
    return {};
}

/// Takes in a character that is not just text.
Result<> Splitter::structural(char c)
{
    switch (c) {
    case '"':
        inside_string_ = !inside_string_;
        break;
    case '\\':
        escaped_ = true;
        break;
    case '{':
        depth_++;
        break;
    case '[':
        if (!inside_object_ && depth_ == 1) {
            // Outside of a string a quote can only be that of a key, so this looks at the key of the list. In front of
            // it there may be white space, which no API server sends.
            std::string before = frame_;
            std::erase_if(before, is_space);
            inside_items_ = before.ends_with("\"items\":[");
        }
        depth_++;
        break;
    default:
        if (depth_ == 0)
            return fail("is not JSON: a bracket closes that was never opened");
        depth_--;
        inside_items_ = inside_items_ && depth_ > 1;
        break;
    }
    return {};
}

Result<> Splitter::finish(const Take &take)
{
    inside_object_ = false;
    auto taken = take(object_);
    object_.clear();
    return taken;
}

} // namespace thruway
