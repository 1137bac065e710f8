#pragma once

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// The process of an image, which has exactly one: check_form() refuses what a peer sent otherwise.
/// Whoever calls this is to be looked at when several processes move together. Borrowed. Of an
/// image that is still empty: a process without anything.
inline const wire::ProcessImage& only_process(const wire::Image& image) {
  return image.processes_size() == 0 ? wire::ProcessImage::default_instance() : image.processes(0);
}
/// The same, made if there is none yet.
inline wire::ProcessImage& mutable_only_process(wire::Image& image) {
  return image.processes_size() == 0 ? *image.add_processes() : *image.mutable_processes(0);
}

}  // namespace migrate
