# frozen_string_literal: true

require "minitest/autorun"
require "logger"
require "stringio"
require "sidekiq"
require "sidekiq/workflow"
require "sidekiq_flow"
require "sidekiq/manager"

Sidekiq.default_configuration.logger = Logger.new(File::NULL)

class Minitest::Test
  Companion = SidekiqFlow::Companion

  RUN_ID = "11111111-2222-3333-4444-555555555555"
  BARRIER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

  def job(**fields)
    {"class" => "A", "args" => [], "jid" => "0123456789abcdef01234567", "queue" => "default", "retry" => true}
      .merge(fields.transform_keys(&:to_s))
  end
end
