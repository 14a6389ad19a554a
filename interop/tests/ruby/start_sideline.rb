# frozen_string_literal: true

# Starts, with the renamed gem, a step that is delayed for fifty days, and one after it.

require_relative "/interop/ruby/jobs"

nodes = Sidekiq::Sideline
late = nodes::WithDelay.new(nodes::Job.new(Rb::Step), delay: 50 * 86_400_000)
nodes::Workflow.new(nodes::Chain.new(late, nodes::Job.new(Rb::Step))).run
