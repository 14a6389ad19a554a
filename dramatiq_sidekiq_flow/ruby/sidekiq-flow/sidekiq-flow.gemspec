# frozen_string_literal: true

require_relative "lib/sidekiq_flow/version"

Gem::Specification.new do |spec|
  spec.name = "sidekiq-flow"
  spec.version = SidekiqFlow::VERSION
  spec.summary = "Makes Ruby's side of workflows across Dramatiq and Sidekiq safe against crashes"
  spec.description = "The companion of the Python package dramatiq-sidekiq-flow: reliable fetch, and failures and " \
    "continuations in one step each, for Sidekiq workers with the gem sidekiq-workflow."
  spec.authors = ["The dramatiq-sidekiq-flow authors"]
  spec.license = "MIT"
  spec.required_ruby_version = ">= 2.7"
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.{rb,lua}", "web/**/*.{css,erb,yml}", "README.md", "CHANGELOG.md"] }
  spec.require_paths = ["lib"]
  # Not published: this keeps it from being pushed to rubygems.org by mistake.
  spec.metadata = {"allowed_push_host" => "https://gems.invalid", "rubygems_mfa_required" => "true"}

  # sidekiq-workflow or sidekiq-sideline: the application has one of the two.
  spec.add_dependency "sidekiq", ">= 7", "< 9"
end
