# frozen_string_literal: true

# A Ruby step that trees of both languages replace. Loaded after the companion.

module Rb
  class Grow
    include Sidekiq::Job
    include Sidekiq::Workflow
    sidekiq_options queue: "ruby", retry: 3

    CARRIED = "docs.step without a Ruby name"

    # +replace+, +add+: trees as lists, such as ["chain", ["ruby", "a"], ["python", "b"]].
    # "fail" in +options+: a number of tries that raise.
    def perform(name, replace, add = [], options = {})
      run = SidekiqFlow.current_run
      run.replace(node(replace)) if replace
      add.each { |tree| run.add(node(tree)) }
      number = Interop.try_number(jid)
      raise "fails" if number <= options.fetch("fail", 0)

      {"grown #{name}" => number}
    end

    private

    def node(tree)
      kind, *rest = tree
      case kind
      when "ruby" then Job.new(Step, *rest)
      when "python" then Job.new(NoopWorker, *rest, queue: "python", retry: 3, wrapped: CARRIED, display_class: CARRIED)
      when "grow" then Job.new(Grow, *rest, queue: "ruby") # Python has not seen its options
      when "wait" then SidekiqFlow.wait_for(rest[0], queue: "python", timeout: rest[1], otherwise: rest[2] && node(rest[2]))
      when "chain" then Chain.new(*rest.map { |child| node(child) })
      when "group" then Group.new(*rest.map { |child| node(child) })
      else Object.new
      end
    end
  end

  # Sends a signal to its own run.
  class Signals
    include Sidekiq::Job
    sidekiq_options queue: "ruby"

    def perform(name, data)
      {"sent" => SidekiqFlow.signal(SidekiqFlow.current_run.run_id, name, data)}
    end
  end
end

# Kills this process once, before the script is sent, and once after.
module Interop
  module KilledAround
    def run(conn, script, *rest)
      kill("before") if script == "replace"
      super.tap { kill("after") if script == "replace" }
    end

    private

    def kill(moment)
      return if Sidekiq.redis { |conn| conn.call("SREM", "interop:kill", moment) }.zero?

      Process.kill(:KILL, Process.pid)
      sleep
    end
  end
end
SidekiqFlow::Companion::Scripts.singleton_class.prepend(Interop::KilledAround)
