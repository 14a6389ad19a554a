# frozen_string_literal: true

# Built by `make companion` from the version of the Python package.
module SidekiqFlow
  VERSION = "0.1.0"
end
