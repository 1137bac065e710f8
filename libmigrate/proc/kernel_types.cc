#include "libmigrate/proc/kernel_types.h"

#include <linux/btf.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>

#include "base/file.h"

namespace migrate {
namespace {

constexpr const char* kTypesPath = "/sys/kernel/btf/vmlinux";
constexpr std::uint32_t kDeclarationTag =
    17;  // as BTF_KIND_DECL_TAG, TYPE_TAG and ENUM64 of newer headers
constexpr std::uint32_t kTypeTag = 18;
constexpr std::uint32_t kEnumeration64 = 19;
constexpr int kMostUnnamed = 8;  // of unnamed members in unnamed members

std::uint32_t kind_of_type(std::uint32_t information) {
  return BTF_INFO_KIND(information);
}

/// The bytes that follow a type, or nothing for a kind that is not known.
std::optional<std::size_t> details_bytes(std::uint32_t information) {
  const std::size_t count = BTF_INFO_VLEN(information);
  switch (kind_of_type(information)) {
    case BTF_KIND_INT:
    case BTF_KIND_VAR:
    case kDeclarationTag:
      return sizeof(std::uint32_t);
    case BTF_KIND_ARRAY:
      return sizeof(btf_array);
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION:
      return count * sizeof(btf_member);
    case BTF_KIND_ENUM:
      return count * sizeof(btf_enum);
    case BTF_KIND_FUNC_PROTO:
      return count * sizeof(btf_param);
    case BTF_KIND_DATASEC:
      return count * sizeof(btf_var_secinfo);
    case kEnumeration64:
      return count * 3 * sizeof(std::uint32_t);
    case BTF_KIND_PTR:
    case BTF_KIND_FWD:
    case BTF_KIND_TYPEDEF:
    case BTF_KIND_VOLATILE:
    case BTF_KIND_CONST:
    case BTF_KIND_RESTRICT:
    case BTF_KIND_FUNC:
    case BTF_KIND_FLOAT:
    case kTypeTag:
      return 0;
    default:
      return std::nullopt;
  }
}

Error corrupt_types() {
  return make_error(ErrorCode::kCorrupt, "read the kernel's types", kTypesPath);
}

}  // namespace

Result<KernelTypes> KernelTypes::read() {
  const std::string text = MIGRATE_TRY(read_file(kTypesPath));
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return parse(std::move(bytes));
}

std::uint32_t KernelTypes::word(std::size_t at) const {
  std::uint32_t value = 0;
  std::memcpy(&value, &bytes_[at], sizeof(value));
  return value;
}

Result<KernelTypes> KernelTypes::parse(std::vector<std::byte> bytes) {
  KernelTypes types;
  types.bytes_ = std::move(bytes);
  btf_header header{};
  if (types.bytes_.size() < sizeof(header)) {
    return fail(corrupt_types());
  }
  std::memcpy(&header, types.bytes_.data(), sizeof(header));
  const auto within = [&](std::uint64_t offset, std::uint64_t length) {
    return header.hdr_len + offset + length <= types.bytes_.size();
  };
  if (header.magic != BTF_MAGIC || header.hdr_len < sizeof(header) ||
      !within(header.type_off, header.type_len) || !within(header.str_off, header.str_len)) {
    return fail(corrupt_types());
  }
  types.strings_ = {reinterpret_cast<const char*>(&types.bytes_[header.hdr_len]) + header.str_off,
                    header.str_len};
  const std::size_t end = std::size_t{header.hdr_len} + header.type_off + header.type_len;
  for (std::size_t at = std::size_t{header.hdr_len} + header.type_off; at < end;) {
    if (end - at < sizeof(btf_type)) {
      return fail(corrupt_types());
    }
    const Type type{types.word(at), types.word(at + 4), at + sizeof(btf_type)};
    const auto details = details_bytes(type.information);
    if (!details || end - type.details < *details) {
      return fail(corrupt_types());
    }
    types.types_.push_back(type);
    at = type.details + *details;
  }
  return types;
}

// Every name stands once among the strings, each of which ends with a zero.
std::optional<std::uint32_t> KernelTypes::find_name(std::string_view name) const {
  std::string wanted(1, '\0');
  wanted.append(name).push_back('\0');
  const auto found = std::search(strings_.begin(), strings_.end(),
                                 std::boyer_moore_horspool_searcher(wanted.begin(), wanted.end()));
  if (found == strings_.end()) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(found - strings_.begin()) + 1;
}

std::optional<std::uint32_t> KernelTypes::find_type(std::uint32_t kind,
                                                    std::string_view name) const {
  const auto place = find_name(name);
  const auto found = std::find_if(types_.begin(), types_.end(), [&](const Type& type) {
    return place && type.name == *place && kind_of_type(type.information) == kind;
  });
  if (found == types_.end()) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(found - types_.begin()) + 1;
}

std::optional<std::uint32_t> KernelTypes::function(std::string_view name) const {
  return find_type(BTF_KIND_FUNC, name);
}

std::optional<std::uint32_t> KernelTypes::offset(std::string_view structure,
                                                 std::string_view member) const {
  const auto number = find_type(BTF_KIND_STRUCT, structure);
  const auto name = find_name(member);
  return number && name ? offset_in(*number, *name, kMostUnnamed) : std::nullopt;
}

std::optional<std::uint32_t> KernelTypes::offset_in(std::uint32_t number, std::uint32_t name,
                                                    int depth) const {
  constexpr std::uint32_t kBits = 8;
  if (number == 0 || number > types_.size() || depth == 0) {
    return std::nullopt;
  }
  const Type& type = types_[number - 1];
  if (kind_of_type(type.information) != BTF_KIND_STRUCT &&
      kind_of_type(type.information) != BTF_KIND_UNION) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < BTF_INFO_VLEN(type.information); ++i) {
    const std::size_t at = type.details + i * sizeof(btf_member);
    const std::uint32_t place = word(at + 8);
    const std::uint32_t bits =
        BTF_INFO_KFLAG(type.information) != 0 ? BTF_MEMBER_BIT_OFFSET(place) : place;
    const auto inner = word(at) == name ? std::optional<std::uint32_t>(0)
                       : word(at) == 0  ? offset_in(word(at + 4), name, depth - 1)
                                        : std::nullopt;
    if (inner && bits % kBits == 0) {
      return bits / kBits + *inner;
    }
  }
  return std::nullopt;
}

}  // namespace migrate
