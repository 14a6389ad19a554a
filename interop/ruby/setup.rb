# frozen_string_literal: true

# Loads the gem sidekiq-workflow, or the stand-in in lib/. Every program here
# begins with this file, and only this file knows which of the two it got.
#
#   SIDEKIQ_WORKFLOW_LIB  folder that holds sidekiq/workflow.rb of the real gem
#   INTEROP_REQUIRE       more Ruby files to load after it, colon between two
#                         (stubs of Python actors, the companion file)

require "sidekiq"

# Sidekiq logs to standard output, which belongs to the answers of start.rb and
# api.rb. A worker process keeps Sidekiq's own logger.
Sidekiq.configure_client { |config| config.logger = Sidekiq::Logger.new($stderr, level: Logger::WARN) }

lib = ENV["SIDEKIQ_WORKFLOW_LIB"].to_s
lib = File.expand_path("lib", __dir__) if lib.empty?
$LOAD_PATH.unshift(lib)
require "sidekiq/workflow"

ENV.fetch("INTEROP_REQUIRE", "").split(":").each { |path| require File.expand_path(path, __dir__) }

module Interop
  module_function

  # Runs a serialized workflow under a given run id. Reading the tree is left
  # to the gem, so that a tree means here what it means in a callback. Where
  # the run id goes is asked of the method, because no document says it.
  def run_workflow(tree, run_id)
    node = Sidekiq::Workflow::Serialize.unserialize_workflow(tree)
    workflow = Sidekiq::Workflow::Workflow
    if workflow.instance_method(:initialize).parameters.any? { |_, name| name == :run_id }
      workflow.new(node, run_id: run_id).run
    else
      workflow.new(node).run(run_id)
    end
  end

  def run_with_options(tree, run_id, options)
    serialize = Sidekiq::Workflow::Serialize
    given = options.to_h do |name, value|
      [name.to_sym, value.is_a?(Hash) ? serialize.unserialize_workflow(value) : value]
    end
    SidekiqFlow.run(serialize.unserialize_workflow(tree), run_id: run_id, **given)
  end

  # Every class name in a tree, callbacks to come included.
  def class_names(tree)
    return [tree["class"]] if tree["__type__"] == "job"

    [*tree["children"], *tree["task"]&.then { |task| [task] }].flat_map { |part| class_names(part) }.uniq
  end

  def defined_class?(name)
    Object.const_defined?(name)
  rescue NameError
    false # no constant name at all: the gem's own error is the better one
  end

  # A Ruby class that stands for a Python actor. Ruby needs the constant to
  # push the step; running it in Ruby would pass the step without its work.
  def define_stub(name, queue:)
    return if defined_class?(name)

    *modules, last = name.split("::")
    owner = modules.inject(Object) do |mod, part|
      mod.const_defined?(part, false) ? mod.const_get(part, false) : mod.const_set(part, Module.new)
    end
    owner.const_set(last, Class.new {
      include Sidekiq::Job
      sidekiq_options queue: queue
      const_set(:RUNS_IN_PYTHON, true)

      define_method(:perform) { |*| raise "#{name} runs in Python: this Ruby worker must not take from queue #{queue}" }
    })
  end
end
