#pragma once

#include <nlohmann/json.hpp>
#include <span>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Each link of the process to others, by its descriptors: what it is, and how it would go. Those
/// that are refused are what `refusals` say.
nlohmann::json links_json(const wire::Image& image, std::span<const wire::Refusal> refusals);

}  // namespace migrate
