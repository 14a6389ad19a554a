# frozen_string_literal: true

# The jobs of tests/corpus: each notes its first argument, and fails while it is told to.

module Corpus
  class Failure < StandardError; end

  class Job
    include Sidekiq::Job
    sidekiq_options queue: "corpus", retry: 0

    LIST = "corpus:ran"

    def perform(*arguments)
      name = arguments.first.is_a?(String) ? arguments.first : ""
      fails = Sidekiq.redis do |conn|
        conn.call("RPUSH", self.class::LIST, name)
        conn.call("EXISTS", "corpus:fail") == 1
      end
      raise Failure, "as it was told" if fails && !name.start_with?("good ")
    end
  end

  class Next < Job
    LIST = "corpus:next"
  end
end
