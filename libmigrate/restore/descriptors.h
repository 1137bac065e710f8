#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/carriers/carrier.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/restore/self_made.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// The open files of an image, made anew in this process: one descriptor for each
/// Objects.files, in their order. `relays`: for each stream id the descriptor that the process gets
/// (borrowed). `memories`: the image's shared memories (borrowed). `made`: by `process`, for which
/// all this is. Files are opened as `user`.
/// Errors: kNotFound, kRefused (another file is there by now), kCorrupt (no such relay), kSystem;
/// object names the file.
Result<std::vector<UniqueFd>> make_open_files(const wire::Objects& objects,
                                              const std::map<std::uint64_t, int>& relays,
                                              const std::vector<UniqueFd>& memories, SelfMade made,
                                              const FileUser& user, pid_t process);

/// Sends descriptors to the seed and adds the calls by which it receives them, as its lowest free
/// numbers in order.
Result<void> script_receive(Script& script, Cell& cell, std::span<const int> descriptors);

/// Adds the calls that turn the received descriptors 0..n-1 (the image's files in order) into the
/// image's descriptor table, closing everything else, the seed's socket too; then those by which
/// carriers connect what is in it.
void script_descriptor_table(Script& script, const wire::Objects& objects,
                             const wire::ProcessImage& image, std::uint32_t seed_descriptor);

/// Highest descriptor number that is in use, or 0.
std::uint32_t highest_descriptor(const wire::ProcessImage& image);

}  // namespace migrate
