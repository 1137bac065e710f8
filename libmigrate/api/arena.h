#pragma once

namespace migrate::client {

/// Around fork(2), so that what a child has of its arenas is whole.
void hold_arenas();
void release_arenas();

}  // namespace migrate::client
