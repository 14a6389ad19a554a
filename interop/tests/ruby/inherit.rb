# frozen_string_literal: true

# Keys of this application's own that steps hand on (worker.rb configures the
# companion; this is what it is given).

module Interop
  COMPANION_OPTIONS = {inherit: %w[shard own-*]}.freeze
end
